"""What the processes of one fit know by now, so that nothing is sent twice: module, data, who has which."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import Subset

from fedlightning.algorithms import Extras, Update
from fedlightning.data.combined_shard import CombinedShard
from fedlightning.local.hooks import is_hooked
from fedlightning.local.known import known
from fedlightning.local.lean import is_listened_to
from fedlightning.local.streams import Stream
from fedlightning.local.vectorised.chunks import Numbers
from fedlightning.local.vectorised.pooled import PooledErrands
from fedlightning.local.worker_trainer import TrainerSettings
from fedlightning.strategy.errors import NotFederatable
from fedlightning.strategy.processes.claims import Claims
from fedlightning.strategy.processes.cohort_rows import CohortPlace, CohortRows, is_better_by_cohort
from fedlightning.strategy.processes.crew import AHEAD, Crew, PieceLost
from fedlightning.strategy.processes.division import portions_of, put_together
from fedlightning.strategy.processes.messages import (
    AsForetold,
    Begin,
    Cohort,
    Columns,
    ColumnsDone,
    Data,
    Done,
    Foretold,
    Job,
    LetGo,
    Portion,
    Prepare,
    Reserve,
    Rows,
    torch_settings,
)
from fedlightning.strategy.processes.packing import pack, pack_shared
from fedlightning.strategy.processes.shared_memory import Layout, SharedMemory

_MOST_SLOTS = 64
_SLOT_BYTES = 1 << 27
"""Up to so many bytes, there is room for more means than have to be."""


class Session:
    """Let processes work for one fit.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._crew = Crew(count)
        self._layout: Layout | None = None
        self._memory: SharedMemory | None = None
        self._claims: Claims | None = None
        self._slots = 0
        self._start: list[Tensor] = []
        self._means: list[list[Tensor]] = []
        self._parts: dict[str, bytes] = {}
        # With the objects themselves: the number of one that is gone would be that of another.
        self._data: dict[int, tuple[int, object]] = {}
        self._numbered = 0
        self._cohort_rows: CohortRows | None = None
        self._of_cohorts: set[int] = set()
        self._foretold: PooledErrands | None = None
        self._streams: list[dict[str, Stream]] = [{} for _ in range(count)]

    @property
    def processes(self) -> Sequence[Any]:
        """The processes."""
        return self._crew.processes

    # Before the visits of a round.

    def prepare(self, trainer: pl.Trainer) -> None:
        """Let the processes make a Trainer of their own, which takes them as long as some visits.

        Args:
            trainer: The one at the controller.

        Raises:
            NotFederatable: Its precision plugin cannot be sent to another process.
        """
        self._parts["trainer"] = _trainer_part(trainer)
        self._crew.tell(pack(Prepare(self._parts["trainer"])))

    @torch.no_grad()
    def begin(
        self,
        module: pl.LightningModule,
        optimizers: Sequence[Optimizer],
        start: Sequence[Tensor],
        procedures: Sequence[Any],
        *,
        pieces: int,
        **settings: Any,
    ) -> None:
        """Let the processes know what a round's visits have in common.

        Args:
            module: The global module.
            optimizers: Its optimizers, with the settings of the round.
            start: What visits start with: its parameters and buffers.
            procedures: What is done in them.
            pieces: How many means there will be.
            **settings: Further arguments of `Begin`.

        Raises:
            NotFederatable: Something cannot be sent to another process.
        """
        tensors = known(module)
        table = [*tensors.parameters, *tensors.buffers]
        _refuse_hooks(module, tensors.parameters, optimizers)
        self._make_room(table, module.device, pieces)
        torch._foreach_copy_(self._start, list(start))
        numbers = {id(tensor): number for number, tensor in enumerate(table)}
        trainer = module.trainer
        parts = {
            "trainer": _trainer_part(trainer),
            "module": _packed(f"the {type(module).__name__}", module, numbers),
            "optimizers": _packed("its optimizers", list(optimizers), numbers),
        }
        changed = {name: part for name, part in parts.items() if part != self._parts.get(name)}
        self._parts = parts
        begin = Begin(
            changed,
            [tensor.requires_grad for tensor in table],
            (trainer.current_epoch, trainer.global_step),
            _packed("what the algorithm does at workers", list(procedures)),
            **settings,
        )
        self._crew.tell_later(pack(begin))

    def _make_room(self, table: Sequence[Tensor], device: torch.device, pieces: int) -> None:
        layout = Layout.of(table)
        least = (AHEAD + 1) * len(self.processes)
        most = max(least, min(_MOST_SLOTS, _SLOT_BYTES // max(layout.nbytes, 1)))
        wanted = min(max(least, pieces), most)
        if layout == self._layout and wanted <= self._slots:
            return
        # Who needs more once may do so again.
        slots = self._slots = wanted if self._layout is None else most
        self._layout = layout
        self._parts = {name: part for name, part in self._parts.items() if name == "trainer"}
        means, count = layout.nbytes * (1 + slots), len(self.processes)
        self._memory = SharedMemory(means + Claims.nbytes_for(count, slots))
        self._claims = Claims(self._memory.file, self._memory.bytes[means:], count)
        self._start, *self._means = (layout.within(self._memory.bytes, n) for n in range(1 + slots))
        for number, process in enumerate(self.processes):
            reserve = Reserve(layout, slots, number, count, _device_of(number, device), torch_settings())
            process.tell(pack(reserve), self._memory.descriptor)

    def sharing(self, streams: Sequence[Stream]) -> AbstractContextManager[None]:
        """Let the processes see the data of some workers after the block, if they do not yet.

        Args:
            streams: Theirs.

        Raises:
            NotFederatable: A data set cannot be sent to another process.
        """
        return self.sharing_roots(root for stream in streams for root in _roots_of(stream))

    @contextmanager
    def sharing_roots(self, roots: Iterable[object]) -> Iterator[None]:
        """Let the processes know objects after the block, if they do not yet; as `sharing`.

        Args:
            roots: What many streams have in common.
        """
        news = {id(root): root for root in roots}
        new = [root for number, root in news.items() if number not in self._data]
        if not new:
            yield
            return
        first = self._number(new)
        with ThreadPoolExecutor(1) as writer:  # both wait for the system to find memory
            written = writer.submit(pack_shared, new)
            yield
            packed, places, memory = _told("the data", written.result)
        self._crew.tell(pack(Data(first, packed, places, len(memory.bytes))), memory.descriptor)

    def _number(self, objects: Sequence[object]) -> int:
        """Number objects, by which the processes will know them, and return the number of the first."""
        first = self._numbered
        self._numbered += len(objects)
        self._data.update((id(one), (first + n, one)) for n, one in enumerate(objects))
        return first

    def place(self, errands: PooledErrands) -> PooledErrands:
        """Put the samples of a cohort in memory that the processes see, and return its visits as there.

        They are valid until more than one other cohort was placed.

        Args:
            errands: The visits.

        Raises:
            NotFederatable: There is no memory.
        """
        if self._cohort_rows is None or self._cohort_rows.pool is not errands.pool:
            self._cohort_rows = CohortRows(errands.pool)
        rows = int(errands.samples.sum())
        place: CohortPlace = _told("the data", partial(self._cohort_rows.next_place, rows))
        if id(place.known.dataset) not in self._data:
            self._let_know_of(place)
        return errands.read_from(place.take(errands.pool, errands.workers))

    def _let_know_of(self, place: CohortPlace) -> None:
        assert self._cohort_rows is not None
        left = {id(one) for other in self._cohort_rows.places for one in other.known.objects}
        gone = [self._data.pop(key)[0] for key in self._of_cohorts - left]
        self._of_cohorts = left
        if gone:
            self._crew.tell_later(pack(LetGo(gone)))
        rows = Rows(self._number(place.known.objects), place.shapes, len(place.memory.bytes))
        self._crew.tell(pack(rows), place.memory.descriptor)

    def _place_all(self, cohort_rows: CohortRows) -> None:
        """Place all samples, of which parts were placed so far; that of the round at work stays with it."""
        new = [root for root in cohort_rows.pool.roots if id(root) not in self._data]
        try:
            packed, places, memory = pack_shared(new)
        except OSError:
            cohort_rows.has_to_do = True  # there is no memory for all
            return
        self._crew.tell_later(pack(LetGo([self._data.pop(key)[0] for key in self._of_cohorts])))
        self._of_cohorts, self._cohort_rows = set(), None
        data = Data(self._number(new), packed, places, len(memory.bytes))
        self._crew.tell(pack(data), memory.descriptor)

    # The visits.

    def work_off(self, pieces: Sequence[Sequence[tuple[Job, Stream]]]) -> Generator[Done, None, None]:
        """Have visits made, and yield portions of what they have come to, in order.

        Args:
            pieces: The visits of each piece, with the streams of their workers.
        """
        portions = self._portions([len(piece) for piece in pieces])

        def message(number: int, process: int) -> bytes:
            jobs = [
                [self._with_stream(job, stream, process) for job, stream in pieces[piece]]
                for piece in portions[number]
            ]
            return _packed("what a worker has kept", Portion(number, self._slots_of(portions[number]), jobs))

        return self._crew.work_off(portions, self._slots, message)

    def _portions(self, sizes: Sequence[int]) -> list[range]:
        count = len(self.processes)
        most = self._slots if len(sizes) <= self._slots else self._slots // ((AHEAD + 1) * count)
        return portions_of(sizes, count, most)

    def _slots_of(self, portion: range) -> list[int]:
        return [piece % self._slots for piece in portion]

    def knows(self, roots: Iterable[object]) -> bool:
        """Tell whether the processes know objects already.

        Args:
            roots: As for `sharing_roots`.
        """
        return all(id(root) in self._data for root in roots)

    def foretell(self, errands: PooledErrands) -> None:
        """Let processes that are at work get ready for visits to come, made one after the other.

        Not if their data has no place yet, and is not to get one by itself.

        Args:
            errands: The visits.
        """
        rows = int(errands.samples.sum())
        if self._cohort_rows is not None and self._cohort_rows.is_worth_all:
            self._place_all(self._cohort_rows)
        if self.knows(errands.pool.roots):
            there = errands.alone()
        elif (
            is_better_by_cohort(errands)
            and self._cohort_rows is not None
            and self._cohort_rows.has_room(rows)
        ):
            there = self.place(errands)
        else:
            return
        self._foretold = errands
        self._crew.tell(self._packed_cohort(Foretold(there)))

    def has_foretold(self, cohort: Cohort) -> bool:
        """Let the processes know that the cohort of the round is that which was foretold, if it is.

        Args:
            cohort: Its visits.
        """
        told, self._foretold = self._foretold, None
        if told is None or cohort.way is not None or told.pool is not cohort.errands.pool:
            return False
        if not told.are_those_of(cohort.errands):
            return False
        self._crew.tell_later(pack(AsForetold(cohort.weights, cohort.skips)))
        return True

    def meet(self, cohort: Cohort, *, now: bool) -> None:
        """Let the processes know the cohort of the round, whose data they know.

        Args:
            cohort: Its visits.
            now: Whether they are told at once, to get ready for it, rather than with the next message.
        """
        tell = self._crew.tell if now else self._crew.tell_later
        tell(self._packed_cohort(cohort))

    def _packed_cohort(self, message: Cohort | Foretold) -> bytes:
        return pack(message, {number: entry for number, (entry, _) in self._data.items()})

    def work_off_columns(
        self, pieces: Sequence[Numbers], *, in_turn: bool, meanwhile: Callable[[], None]
    ) -> Generator[ColumnsDone, None, None]:
        """Have visits of the cohort made, and yield what they have come to, pieces in order.

        Args:
            pieces: The positions of the visits of each piece.
            in_turn: Whether they are made one after the other: then processes take pieces for themselves if
                there is room for the means of all.
            meanwhile: What is done as soon as all processes are at work.
        """
        if in_turn and len(pieces) <= self._slots:
            yield from self._claimed(pieces, meanwhile)
            return
        portions = self._portions([len(piece) for piece in pieces])

        def packed(number: int, _: int) -> bytes:
            own = [pieces[piece] for piece in portions[number]]
            slots = self._slots_of(portions[number])
            return pack(Columns(number, slots, [len(piece) for piece in own], np.concatenate(own)))

        with closing(self._crew.work_off(portions, self._slots, packed, meanwhile)) as done:
            for portion, answer in zip(portions, done, strict=True):
                yield replace(answer, pieces=portion)

    def _claimed(
        self, pieces: Sequence[Numbers], meanwhile: Callable[[], None]
    ) -> Generator[ColumnsDone, None, None]:
        """Have the visits of all pieces made by whoever is free."""
        assert self._claims is not None
        self._claims.offer()
        portion, sizes = range(len(pieces)), [len(piece) for piece in pieces]
        message = pack(Columns(0, portion, sizes, np.concatenate(pieces), claimed=True))
        answers, first = [], 0
        try:
            with closing(self._crew.work_off_claimed(portion, message, meanwhile)) as done:
                for answer in done:
                    answers.append(answer)
                    if len(answers) < len(self.processes):
                        # Whoever has nothing left to do leaves a core free for the means that are there.
                        means = self._claims.finished_from(first)[: len(pieces) - first]
                        yield ColumnsDone(0, means, pieces=range(first, first + len(means)))
                        first += len(means)
        except PieceLost as lost:
            raise PieceLost(lost.process, self._claims.last_of(lost.process), str(lost)) from lost
        yield put_together(answers, range(first, len(pieces)))

    def update_of(self, piece: int, device: torch.device, extras: Extras) -> Update:
        """Return the mean that a piece has come to, valid until more is asked for.

        Args:
            piece: Number of the piece.
            device: Where it is wanted.
            extras: What an algorithm sends beside parameters and buffers.
        """
        tensors = self._means[piece % self._slots]
        if device.type != "cpu":
            tensors = [tensor.to(device) for tensor in tensors]
        assert self._layout is not None
        count = self._layout.parameters
        return Update(tensors[:count], [True] * count, tensors[count:], extras)

    def _with_stream(self, job: Job, stream: Stream, process: int) -> Job:
        if self._streams[process].get(job.worker) is stream:
            return job
        self._streams[process][job.worker] = stream
        known = {number: entry for number, (entry, _) in self._data.items()}
        packed = pack(stream, known, thorough=True)
        return Job(job.worker, job.visit, job.weight, job.procedure, packed, job.memory)

    # The end.

    def close(self) -> None:
        """Let the processes go."""
        self._crew.dismiss()

    def end(self) -> None:
        """End the processes, whatever they are at."""
        self._crew.end()


def _trainer_part(trainer: pl.Trainer) -> bytes:
    clipping = trainer.gradient_clip_algorithm
    settings = TrainerSettings(
        precision="32-true",  # its plugin goes along
        gradient_clip_val=trainer.gradient_clip_val,
        gradient_clip_algorithm=None if clipping is None else str(clipping.value),
        max_epochs=trainer.max_epochs,
        max_steps=trainer.max_steps,
    )
    return _packed("the Trainer's precision plugin", (settings, trainer.precision_plugin))


def _refuse_hooks(
    module: pl.LightningModule, parameters: Sequence[Tensor], optimizers: Sequence[Optimizer]
) -> None:
    """Refuse what pickle would drop."""
    if any(map(is_hooked, parameters)):
        name = next(name for name, parameter in module.named_parameters() if is_hooked(parameter))
        raise NotFederatable(
            f"{name} has a hook of its own, which does not travel to other processes. Use a hook of the "
            "LightningModule, or leave processes=... out."
        )
    if any(map(is_listened_to, optimizers)):
        raise NotFederatable(
            "an optimizer has a hook of its own, which does not travel to other processes. Use a hook of the "
            "LightningModule, or leave processes=... out."
        )


def _device_of(process: int, device: torch.device) -> str:
    """Return the device of a process: of several accelerators of a kind, each has its share of processes."""
    if device.type == "cpu":
        return "cpu"
    return f"{device.type}:{process % torch.accelerator.device_count()}"


def _roots_of(stream: Stream) -> Iterator[object]:
    """Yield what the streams of many workers have in common: whole data sets, and how they are read."""
    shard = stream.shard
    for part in shard.parts if isinstance(shard, CombinedShard) else [shard]:
        dataset: Any = part.dataset
        while isinstance(dataset, Subset):
            dataset = dataset.dataset
        yield dataset
        yield part.settings  # type: ignore[union-attr]


def _packed(what: str, value: Any, known: dict[int, int] | None = None) -> bytes:
    packed: bytes = _told(what, lambda: pack(value, known))
    return packed


def _told(what: str, act: Callable[[], Any]) -> Any:
    try:
        return act()
    except Exception as error:
        raise NotFederatable(
            f"{what} cannot be sent to another process: {type(error).__name__}: {error}. Leave out of it "
            "what cannot be pickled, such as open files and locks, or leave processes=... out."
        ) from error
