"""The visits of many workers at once: what `train_locally` does with one, for a chunk of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim import Optimizer

from fedlightning.local.lean import LeanSGD, count_as_step
from fedlightning.local.lightning_calls import replaced_log
from fedlightning.local.vectorised.attributes import Attributes
from fedlightning.local.vectorised.batches import GatheredBatches
from fedlightning.local.vectorised.chunks import Errands, Numbers
from fedlightning.local.vectorised.compiled import CompiledSteps, why_not_compilable
from fedlightning.local.vectorised.gradients import Gradients
from fedlightning.local.vectorised.logs import ChunkLogs
from fedlightning.local.vectorised.lone import LoneStep
from fedlightning.local.vectorised.optimizers import StackedOptimizer
from fedlightning.local.vectorised.pace import Pace
from fedlightning.local.vectorised.randomness import DividedDraws, LoneDraws, WorkerStreams
from fedlightning.local.vectorised.refusal import NotBatchable, in_few_words
from fedlightning.local.vectorised.reports import ChunkReports, Outcome
from fedlightning.local.vectorised.stack import Places, Stack
from fedlightning.local.vectorised.stacked_batch import StackedBatch
from fedlightning.local.vectorised.step import BatchedStep
from fedlightning.local.vectorised.taped import USES, TapedSteps
from fedlightning.local.visit import Visit


@dataclass(frozen=True)
class TrainedChunk:
    """What visits that were carried out together have come to. It holds until the next chunk starts.

    Args:
        numbers: Positions of the visits among those that were given.
        reports: Theirs.
        stack: Where their modules' tensors are, in rows of the same order.
    """

    numbers: Numbers
    reports: ChunkReports
    stack: Stack

    def parameters_of(self, row: int) -> list[Tensor]:
        """Return all parameters of one worker's module, as views without a graph."""
        return self.stack.parameters_of(row)

    def buffers_of(self, row: int) -> list[Tensor]:
        """Return all buffers of one worker's module, as views."""
        return self.stack.buffers_of(row)

    def mean_parameters(self, weights: Sequence[float]) -> list[Tensor]:
        """Return the weighted mean of the workers' parameters.

        Args:
            weights: One for each of them, positive.
        """
        return self.stack.mean_parameters(weights)


class VectorisedTraining:
    """Train a module at many workers at once, chunk by chunk; the module itself stays as it is.

    Args:
        module: The module, attached to a Trainer; nothing speaks against it (`fitness`, `trial`).
        optimizer: Its optimizer, with the settings of the round; not changed.
        chunk: How many workers take their steps together at most.
        numbered: Whether ``training_step`` looks at the number of a batch.
        draws: Whether it draws random numbers.
        compiled: Whether steps are compiled, where that works.
        limit: The most seconds that a step may take of each worker, as the first ones tell; ``None`` for any.

    Attributes:
        chunk: As given.
        draws_made: How often it has drawn some, if it may.
        why_not_compiled: Why steps are not compiled; empty if they are, or nobody has asked for it.
    """

    def __init__(
        self,
        module: pl.LightningModule,
        optimizer: Optimizer,
        *,
        chunk: int,
        numbered: bool,
        draws: bool,
        compiled: bool = False,
        limit: float | None = None,
    ) -> None:
        self._module = module
        self._optimizer = optimizer
        self._numbered = numbered
        self._draws = draws
        self.chunk = chunk
        self._places = Places(module, optimizer)
        # Random numbers are drawn in the order of memory: dropout would have other masks than by itself.
        self._stack = Stack(self._places, chunk, by_channel=chunk == 1 and not draws)
        self._pace = Pace(limit)
        self.draws_made = 0
        self.why_not_compiled = why_not_compilable(module, draws=draws) if compiled else ""
        self._asks_for_graphs = compiled and not self.why_not_compiled
        self._compiled: CompiledSteps | None = None
        self._kept_tapes = TapedSteps(
            module, self._places.replaced, self._stack.tensors, alone=chunk == 1, draws=draws
        )
        self._tapes: TapedSteps | None = None
        self._others = _OtherStreams()
        self._counts = False
        self._tried: set[tuple[Any, ...]] = set()
        self._before_made: Attributes | None = None

    def train(self, errands: Errands, uses: int | None = None) -> Iterator[TrainedChunk]:
        """Carry out visits, all from the module as it is now, and yield what has become of them.

        Args:
            errands: The visits.
            uses: How many steps a round has, where these visits only try it out.

        Yields:
            Chunk after chunk; who is in which is a function of ``errands`` alone.

        Raises:
            NotBatchable: A step cannot be taken for several workers at once, or not in the time that it may
                take. What was yielded before counts.
        """
        self._stack.take_start()
        chunks = errands.chunks(self.chunk)
        steps = len(chunks) * int(errands.steps.max())
        pays = self._kept_tapes.pay(steps) if uses is None else uses >= USES
        self._tapes = self._tapes_for(errands.visit.round) if pays else None
        self._tried.clear()
        for numbers, own in zip(chunks, errands.of_chunks(chunks), strict=True):
            self._stack.begin(len(numbers))
            self._before_made = None
            reports = self._reports(own)
            count_as_step(self._optimizer)
            yield TrainedChunk(numbers, reports, self._stack)

    def _tapes_for(self, round: int) -> TapedSteps | None:
        """Return where steps of a round are recorded, if that is possible."""
        # Draws for several workers, and those of another device, are no part of a tape.
        draws = self._draws and (self.chunk > 1 or self._module.device.type != "cpu")
        if draws or self._asks_for_graphs:
            return None
        # Other updates than plain SGD's are no part of a tape.
        groups = self._optimizer.param_groups if LeanSGD.fits(self._optimizer) else []
        settings = [{name: value for name, value in group.items() if name != "params"} for group in groups]
        self._kept_tapes.hold_for(round, settings)
        return self._kept_tapes

    def _reports(self, errands: Errands) -> ChunkReports:
        """Carry out the visits of one chunk, whose workers lie in the stack."""
        optimizer = StackedOptimizer(self._optimizer, len(errands), self._places.groups)
        optimizer.load(errands.states())
        logs = ChunkLogs(self._module, separately=errands.metrics_of_each)
        self._others = _OtherStreams()
        with replaced_log(self._module, logs.log):
            outcome = self._take_steps(errands, optimizer, logs)
            finite = self._finite(errands)
            self._counts = self._counts or logs.counts.has_any
            metrics = logs.counts.metrics(finite)
            self._others.require_unused()
        reports = outcome.reports(logs.columns(), finite, metrics)
        errands.put_down(np.flatnonzero(reports.finite).tolist(), optimizer)
        return reports

    def _take_steps(self, errands: Errands, optimizer: StackedOptimizer, logs: ChunkLogs) -> Outcome:
        device, visit, outcome = self._module.device, errands.visit, Outcome(errands.steps)
        batches = errands.batches(numbered=self._numbered, device=device)
        # Metrics count what played steps give them, and data sets of the user's are read.
        if self._tapes is None or self._counts or not isinstance(batches, GatheredBatches):
            self._others.watch()
        streams = WorkerStreams(errands.seeds(), device) if self._draws else None
        kind = LoneStep if self.chunk == 1 else BatchedStep
        step = kind(self._module, self._places, logs, passes_batch_idx=visit.passes_batch_idx)
        shortest, longest = int(errands.steps[-1]), int(errands.steps[0])
        self._pace.start()
        for number in range(longest):
            active = len(errands) if number < shortest else int((errands.steps > number).sum())
            for batch in batches.of_step(number, active):
                samples = logs.samples
                with self._attributes_unchanged(batch):
                    losses = self._step(batch, step, optimizer, logs, streams, visit)
                outcome.note(number, batch.rows, losses, logs.samples - samples)
                self._pace.stepped(batch.rows.stop - batch.rows.start)
        return outcome

    @contextmanager
    def _attributes_unchanged(self, batch: StackedBatch) -> Iterator[None]:
        """Look whether a round's first step of several workers on batches of some size changes attributes.

        The trial has taken a step of one size in one round; another, such as that of a last batch, may go
        another way. What a step has only made, as caches are, the next one must leave as it is.

        Raises:
            NotBatchable: It does; they are put back.
        """
        kind = tuple((shape[1:], dtype) for shape, dtype in batch.kinds)
        if self.chunk == 1 or kind in self._tried:
            yield
            return
        if self._tapes is not None and self._tapes.plays(batch):
            self._tried.add(kind)  # has been looked through
            yield
            return
        before = Attributes.of(self._module)
        try:
            yield
            made = before.require_the_same(Attributes.of(self._module), but_made=True)
        except BaseException:
            (self._before_made or before).put_back()
            raise
        if made:
            self._before_made = self._before_made or before
        else:
            self._tried.add(kind)

    def _step(
        self,
        batch: StackedBatch,
        step: BatchedStep,
        optimizer: StackedOptimizer,
        logs: ChunkLogs,
        streams: WorkerStreams | None,
        visit: Visit,
    ) -> Tensor:
        """Take a step by what is fastest of what there is, and return its losses."""
        rows = batch.rows
        if self._tapes is not None:
            return self._by_tape(self._tapes, batch, step, optimizer, logs, streams)
        parameters = self._parameters_of(rows)
        gradients = self._by_graph(batch, parameters, logs, visit)
        if gradients is None:
            draws = self._draws_of(streams, rows)
            gradients = step.gradients(batch, parameters, self._buffers_of(rows), draws)
            self.draws_made += 0 if draws is None else draws.count
            self._learn(batch, gradients, logs)
        optimizer.step(rows, parameters, gradients)
        return gradients.losses

    def _learn(self, batch: StackedBatch, gradients: Gradients, logs: ChunkLogs) -> None:
        """Let an uncompiled step show what a graph is to do."""
        if self._compiled is None:
            return
        try:
            self._compiled.learn(batch, gradients, logs.notes)
        except NotBatchable as error:
            self._compile_nothing(error)

    def _compile_nothing(self, error: Exception) -> None:
        self.why_not_compiled = in_few_words(error)
        self._asks_for_graphs, self._compiled = False, None

    def _draws_of(self, streams: WorkerStreams | None, rows: slice) -> DividedDraws | LoneDraws | None:
        if streams is None:
            return None
        return streams.alone(rows.start) if self.chunk == 1 else streams.of(rows)

    def _by_tape(
        self,
        tapes: TapedSteps,
        batch: StackedBatch,
        step: BatchedStep,
        optimizer: StackedOptimizer,
        logs: ChunkLogs,
        streams: WorkerStreams | None,
    ) -> Tensor:
        """Take a step as an earlier one was taken; plain SGD's update is part of it."""

        def take() -> Gradients:
            self._others.watch()
            parameters = self._parameters_of(batch.rows)
            gradients = step.gradients(batch, parameters, self._buffers_of(batch.rows), None)
            if not optimizer.is_plain:
                return gradients if optimizer.takes_factors else gradients.in_full()
            optimizer.step(batch.rows, parameters, gradients)
            return Gradients(gradients.losses, [], [], gradients.logged)

        draws = self._draws_of(streams, batch.rows)
        with draws or nullcontext():
            gradients = tapes.take(batch, logs, take)
        self.draws_made += 0 if draws is None else draws.count
        if not optimizer.is_plain:
            optimizer.step(batch.rows, self._parameters_of(batch.rows), gradients)
        return gradients.losses

    def _parameters_of(self, rows: slice) -> list[Tensor]:
        return [stack[rows] for stack in self._stack.parameters]

    def _buffers_of(self, rows: slice) -> list[Tensor]:
        return [stack[rows] for stack in self._stack.buffers]

    def _by_graph(
        self, batch: StackedBatch, parameters: Sequence[Tensor], logs: ChunkLogs, visit: Visit
    ) -> Gradients | None:
        """Take a step by a compiled graph; return ``None`` where there is none."""
        if not self._asks_for_graphs:
            return None
        if self._compiled is None:
            passes = visit.passes_batch_idx
            self._compiled = CompiledSteps(self._module, self._places, passes_batch_idx=passes)
        if not self._compiled.is_ready(batch):
            return None
        try:
            return self._compiled.gradients(batch, parameters, logs)
        except Exception as error:  # noqa: BLE001  # whatever it is: the same step uncompiled will tell
            self._compile_nothing(error)
            return None

    def _finite(self, errands: Errands) -> npt.NDArray[np.bool_]:
        """Tell of each worker whether it has ended with finite parameters, where that is required."""
        count = len(errands)
        if not errands.visit.requires_finite:
            return np.ones(count, dtype=np.bool_)
        frozen = [parameter for parameter in self._places.parameters if not parameter.requires_grad]
        norms = [torch.linalg.vector_norm(tensor.detach()).float().expand(count) for tensor in frozen]
        norms += [
            torch.linalg.vector_norm(stack[:count].flatten(1), dim=1).float()
            for stack in self._stack.parameters
        ]
        finite: npt.NDArray[np.bool_] = torch.stack(norms).isfinite().all(0).cpu().numpy()
        return finite


class _OtherStreams:
    """NumPy's and Python's random streams, of which one draw would be for all workers.

    To know that nobody has drawn takes as long as a played step of a small network, in which nobody can.
    """

    def __init__(self) -> None:
        self._before: tuple[Any, Any] | None = None

    def watch(self) -> None:
        """Notice draws from now on: code is about to run that is not ours."""
        if self._before is None:
            self._before = random.getstate(), np.random.get_state()

    def require_unused(self) -> None:
        """Put the streams back if somebody has drawn from them.

        Raises:
            NotBatchable: Somebody has.
        """
        if self._before is None:
            return
        python, numpy = self._before
        if random.getstate() != python or not _same(np.random.get_state(), numpy):
            random.setstate(python)
            np.random.set_state(numpy)
            raise NotBatchable("training_step draws random numbers from NumPy or Python")


def _same(state: Any, other: Any) -> bool:
    """Tell whether two states of NumPy's generator are the same, of which one part is an array."""
    name, keys, *rest = state
    return [name, *rest] == [other[0], *other[2:]] and np.array_equal(keys, other[1])
