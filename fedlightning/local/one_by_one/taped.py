"""Steps of one worker at a time that are taken by playing a tape, to the bits of the ordinary ones.

A step by itself may do anything in Python. So one is recorded only where all that it reads there is known
(``readings``), and changes nothing; a tape holds as long as that is the same. The optimizer's own step is no
part of it: learning rates may change as they like.

First a step is taken in the ordinary way, and watched. The next one is recorded while it is taken; what has
been recorded is played on the batch of the one before, and counts if it comes to the same bits. So nothing is
computed for the sake of a tape but one play.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from fedlightning.local.engine import GradModeOff
from fedlightning.local.lean import ByGradients, LeanOptimization
from fedlightning.local.lightning_calls import LOGS_ALONE
from fedlightning.local.one_by_one.batches import VisitBatch
from fedlightning.local.one_by_one.counted_later import CountedLater, may_wait
from fedlightning.local.one_by_one.logs import LogCall, VisitLogs
from fedlightning.local.one_by_one.metric_calls import MadeCalls, WithheldCalls, beside, counters_of
from fedlightning.local.one_by_one.step_notes import Counted, Note, StepNotes
from fedlightning.local.tapes.arena import Arena
from fedlightning.local.tapes.held import HeldBefore, held_by
from fedlightning.local.tapes.proof import TakenStep, fill, is_proven, same_bits
from fedlightning.local.tapes.readings import Readings
from fedlightning.local.tapes.recorder import Recorder
from fedlightning.local.tapes.tape import Tape
from fedlightning.local.tapes.watching import Watch
from fedlightning.local.vectorised.fitness import reads_batch_idx
from fedlightning.local.visit import Visit

USES = 16
"""Steps of a round for which tapes are worth their recording, where they do not last for longer."""

MOST_TAPES = 64
"""How many different steps are recorded, at most: of batches of so many sizes."""

MOST_BYTES = 1 << 28
"""What recorded steps may compute in all: all of it is kept meanwhile, and much of it for good."""


@dataclass(frozen=True)
class _Taped:
    """A tape, and what belongs to it in Python.

    Args:
        tape: The tape.
        loss: Where the loss is found.
        notes: What the step logs and counts, with the tensors where its numbers are found.
        waits: For each of them whether it may be done later, with those of other steps.
        gradients: Where the gradients are found; ``None`` for those that there are not.
    """

    tape: Tape
    loss: Tensor
    notes: Sequence[Note]
    waits: Sequence[bool]
    gradients: Sequence[Tensor | None]


@dataclass(frozen=True)
class _Watched:
    """A step that was watched, and of which another is to be recorded.

    Args:
        taken: The step.
        notes: What it has logged and counted.
    """

    taken: TakenStep
    notes: StepNotes


@dataclass(frozen=True)
class _Recorded:
    """A step that was recorded while it was taken.

    Args:
        taped: Its tape, which is proven.
        loss: Its loss.
        gradients: Its gradients.
        notes: What it logs and counts, which has not been done yet.
    """

    taped: _Taped
    loss: Tensor
    gradients: Sequence[Tensor | None]
    notes: StepNotes


class StepTapes:
    """The tapes of a module's steps, from round to round."""

    def __init__(self) -> None:
        self._arena = Arena()
        self._tapes: dict[Any, _Taped | None] = {}
        self._seen: set[Any] = set()
        self._waiting: tuple[Any, _Watched] | None = None
        self._rare: set[Any] = set()
        self._module: pl.LightningModule | None = None
        self._terms: Any = None
        self._readings: Readings | None = None
        self._has_changed = False
        self._is_looked_at = False
        self._is_in_vain = False
        self._bytes_left = MOST_BYTES

    def __reduce__(self) -> tuple[type[StepTapes], tuple[()]]:
        # Memory that steps write to belongs to one module: a copy begins anew.
        return StepTapes, ()

    def of_round(
        self,
        module: pl.LightningModule,
        optimization: LeanOptimization,
        logs: VisitLogs,
        kinds: Sequence[Any],
        visit: Visit,
        steps: int,
    ) -> StepsByTape | None:
        """Return what takes the steps of a round, or ``None`` where tapes cannot, or would not pay.

        Args:
            module: The module, whose steps are taken.
            optimization: Takes them otherwise.
            logs: Stands in for its ``log``.
            kinds: What batches are of.
            visit: Any of the visits.
            steps: Steps of the round.
        """
        if not isinstance(optimization, ByGradients) or torch.is_anomaly_enabled():
            return None
        self._wait_no_longer()
        terms = [*kinds, visit.passes_batch_idx, type(optimization), [*map(id, optimization.trained())]]
        if module is not self._module or terms != self._terms:
            self._forget()
            self._rare.clear()
            self._module, self._terms, self._has_changed = module, terms, False
        elif self._tapes and not self._is_looked_at and not self._read().are_the_same():
            self._forget()
            # What has once changed will do so again.
            self._has_changed = True
        self._is_looked_at = False
        if self._read().why_not or (self._has_changed and steps < USES):
            return None
        return StepsByTape(self, module, optimization, logs, visit)

    def look_ahead(self) -> None:
        """Compare now, while there is time, what the next round's steps would compare first."""
        self._is_looked_at = bool(self._tapes) and self._read().are_the_same()

    def look_no_more(self) -> None:
        """Hear that something may have changed since `look_ahead`: the next round compares by itself."""
        self._is_looked_at = False

    @property
    def is_empty(self) -> bool:
        """Whether no step has been recorded yet."""
        return not self._tapes

    @property
    def readings(self) -> Readings:
        """What recorded steps have read in Python."""
        return self._read()

    @property
    def arena(self) -> Arena:
        """Memory that the tapes share."""
        return self._arena

    def found(self, key: Any) -> _Taped | None:
        """Return the tape of a step, if there is one.

        Args:
            key: What tells it from others.
        """
        return self._tapes.get(key)

    def is_due(self, key: Any) -> bool:
        """Tell whether a step is to be recorded: at its second use, since many shapes come only once.

        Args:
            key: As for `found`.
        """
        if key in self._tapes or self.readings.why_not or len(self._tapes) == MOST_TAPES:
            return False
        if self._is_in_vain:
            return False
        if key in self._seen:
            # What is kept of a step that was watched is as large as the module.
            return self._waiting is None
        self._seen.add(key)
        return False

    def is_rare(self, key: Any) -> bool:
        """Tell whether a round has brought no other step after one that was watched.

        Args:
            key: As for `found`.
        """
        return key in self._rare

    def wait_for(self, key: Any, watched: _Watched) -> None:
        """Have the next step recorded, if there is one in the round: what it reads may change after that.

        Args:
            key: As for `found`.
            watched: A step that was watched.
        """
        self._waiting = key, watched

    def take_watched(self, key: Any) -> _Watched | None:
        """Return the step that was watched, if the one at hand is to be recorded, and wait no longer.

        Args:
            key: As for `found`.
        """
        if self._waiting is None or self._waiting[0] != key:
            return None
        (_, watched), self._waiting = self._waiting, None
        return watched

    def _wait_no_longer(self) -> None:
        if self._waiting is not None:
            (key, _), self._waiting = self._waiting, None
            self._rare.add(key)
            self._tapes.pop(key, None)

    def keep(self, key: Any, taped: _Taped | None) -> None:
        """Keep a tape.

        Args:
            key: As for `found`.
            taped: The tape; ``None`` to take such steps in the ordinary way for good.
        """
        self._tapes[key] = taped

    def give_up(self) -> None:
        """Record no more where nothing could be so far: of another size, a step is much the same."""
        self._is_in_vain = not any(self._tapes.values())

    @property
    def bytes_left(self) -> int:
        """What further steps may compute to be recorded."""
        return self._bytes_left

    def use(self, nbytes: int) -> None:
        """Take note of what a recorded step computes.

        Args:
            nbytes: How much.
        """
        self._bytes_left -= nbytes

    def look_again(self) -> None:
        """Forget all tapes, and record no more, if an ordinary step has changed what was read."""
        if self._waiting is not None or any(self._tapes.values()):
            self._read().look_again()
        if self._read().why_not:
            self._tapes.clear()
            self._waiting = None

    def _read(self) -> Readings:
        if self._readings is None:
            assert self._module is not None
            self._readings = Readings(self._module, beside=beside(self._module))
        return self._readings

    def _forget(self) -> None:
        self._tapes.clear()
        self._seen.clear()
        self._readings = None
        self._is_in_vain = False
        self._bytes_left = MOST_BYTES


class StepsByTape:
    """Take the steps of a round by tapes, and record what there is none of yet.

    Args:
        tapes: The tapes.
        module: As of `StepTapes.of_round`.
        optimization: Likewise.
        logs: Likewise.
        visit: Likewise.
    """

    def __init__(
        self,
        tapes: StepTapes,
        module: pl.LightningModule,
        optimization: ByGradients,
        logs: VisitLogs,
        visit: Visit,
    ) -> None:
        self._tapes = tapes
        self._module = module
        self._optimization = optimization
        self._logs = logs
        self._counters = counters_of(module)
        self._counts = CountedLater()
        self._passes_batch_idx = visit.passes_batch_idx
        self._is_numbered = visit.passes_batch_idx and reads_batch_idx(module)

    @property
    def has_tapes(self) -> bool:
        """Whether most batches are wanted where a tape expects them."""
        return not self._tapes.is_empty and not self._tapes.readings.why_not

    def begin_visit(self) -> None:
        """Forget what is left of the visit before."""
        self._counts.begin()

    def end_visit(self) -> None:
        """Let metrics count what they have not yet.

        Raises:
            CountFailed: One of them refuses it.
        """
        self._counts.count()

    def take(self, batch: VisitBatch) -> Tensor | None:
        """Take a step.

        Args:
            batch: Its batch.

        Returns:
            The loss, shape ``()``, without a graph, until the next step is taken; ``None`` where the module
            skips the step.
        """
        key = (batch.size, batch.number) if self._is_numbered else batch.size
        taped = self._tapes.found(key)
        if taped is None:
            return self._take_anew(batch, key)
        try:
            with GradModeOff():
                batch.read_into(taped.tape.inputs)
            self._logs.start_step_of(taped.tape.inputs, batch.size)
            taped.tape.play()
            self._note_again(taped)
        except Exception:
            # An earlier step may have failed before.
            self._counts.count()
            raise
        self._counts.next_step()
        self._optimization.descend(taped.gradients)
        return taped.loss

    def _note_again(self, taped: _Taped) -> None:
        """Log and count what a played step does."""
        results: list[Any] = []
        for note, waits in zip(taped.notes, taped.waits, strict=True):
            if not waits:
                note.do(self._logs, results)
            else:
                assert isinstance(note, Counted)
                self._counts.add(note)
                results.append(None)

    def _take_anew(self, batch: VisitBatch, key: Any) -> Tensor | None:
        self._counts.count()
        self._counts.next_step()
        self._logs.start_step_of(batch.tensors, batch.size)
        watched = self._tapes.take_watched(key)
        if watched is not None:
            return self._take_recorded(batch, key, watched)
        if not self._tapes.is_due(key) or self._is_large():
            return self._take_as_ever(batch)
        found = self._watched(batch, key)
        if found is None:
            self._optimization.skip()
            return None
        loss, gradients = found
        kept = loss.clone()
        self._optimization.descend(gradients)
        return kept

    def _take_as_ever(self, batch: VisitBatch) -> Tensor | None:
        taken = self._optimization.take(batch.tensors, batch.number, passes_batch_idx=self._passes_batch_idx)
        self._tapes.look_again()
        return taken

    def _is_large(self) -> bool:
        """Tell whether gradients alone are more than what a step may compute to be recorded."""
        return sum(tensor.nbytes for tensor in self._optimization.trained()) > self._tapes.bytes_left

    def _take_recorded(self, batch: VisitBatch, key: Any, watched: _Watched) -> Tensor | None:
        """Take a step while it is recorded; in the ordinary way, if it cannot be."""
        places = self._places()
        before, random = [place.clone() for place in places], torch.get_rng_state()
        recorded = self._recorded(batch, watched, places)
        if recorded is None:
            fill(places, before)
            torch.set_rng_state(random)
            self._tapes.give_up()
            return self._take_as_ever(batch)
        self._tapes.keep(key, recorded.taped)
        kept, results = recorded.loss.clone(), list[Any]()
        for note in recorded.notes.notes:
            note.do(self._logs, results)
        self._optimization.descend(recorded.gradients)
        return kept

    def _places(self) -> list[Tensor]:
        return [tensor.detach() for tensor in self._optimization.trained()]

    def _watched(self, batch: VisitBatch, key: Any) -> tuple[Tensor, Sequence[Tensor | None]] | None:
        """Compute a step in the ordinary way, and have the next one recorded, where it changes nothing."""
        places = self._places()
        before, random = [place.clone() for place in places], torch.get_rng_state()
        held = held_by(self._module, apart=self._counters)
        watch = Watch(LOGS_ALONE)
        made = MadeCalls(self._counters, watch.looking_away)

        def note(call: LogCall) -> None:
            made.notes.log(call, call.value.detach().clone() if isinstance(call.value, Tensor) else None)

        with made.noted(), self._logs.told_to(note, records=True), watch:
            # In a list of its own: what is put in there is none of the batch that the tape is proven on.
            found = self._differentiate([*batch.tensors], batch.number)
        self._tapes.readings.add(watch)
        if held_by(self._module, apart=self._counters) != held:
            self._tapes.readings.why_not = "the step changes its module"
        self._tapes.keep(key, None)
        self._tapes.look_again()
        if found is None or self._tapes.readings.why_not:
            return found
        random_after = torch.get_rng_state()
        made.check_order(random_after)
        if made.why_not or made.notes.why_not_again():
            self._tapes.give_up()
            return found
        gradients = [gradient for gradient in found[1] if gradient is not None]
        if not self._optimization.only_reads:
            gradients = [gradient.clone() for gradient in gradients]
        outputs = [found[0].clone(), *made.notes.tensors, *gradients]
        is_changed = not all(map(same_bits, places, before))
        after = [place.clone() for place in places] if is_changed else before
        taken = TakenStep(batch.read_into, outputs, before, after, random, random_after)
        watched = _Watched(taken, made.notes)
        if self._tapes.is_rare(key):
            self._record_again(batch, key, watched, places)
        else:
            self._tapes.wait_for(key, watched)
        return found

    def _record_again(self, batch: VisitBatch, key: Any, watched: _Watched, places: Sequence[Tensor]) -> None:
        """Record the very step that was watched; all is as it has left it afterwards."""
        taken = watched.taken
        assert taken.after is not None
        assert taken.random is not None
        assert taken.random_after is not None
        try:
            fill(places, taken.before)
            torch.set_rng_state(taken.random)
            recorded = self._recorded(batch, watched, places)
        finally:
            fill(places, taken.after)
            torch.set_rng_state(taken.random_after)
        if recorded is None:
            self._tapes.give_up()
        else:
            self._tapes.keep(key, recorded.taped)

    def _differentiate(
        self, tensors: list[Tensor], number: int
    ) -> tuple[Tensor, Sequence[Tensor | None]] | None:
        return self._optimization.differentiate(tensors, number, passes_batch_idx=self._passes_batch_idx)

    def _recorded(self, batch: VisitBatch, watched: _Watched, places: Sequence[Tensor]) -> _Recorded | None:
        """Take a step up to its gradients, and record it; ``None`` where it cannot be made again."""
        held = HeldBefore(self._module)
        try:
            recorded = self._proven(batch, watched, places)
        except Exception:  # noqa: BLE001  # whatever it is: steps go on being taken in the ordinary way
            recorded = None
        if recorded is None:
            held.put_back()
        return recorded

    def _proven(self, batch: VisitBatch, watched: _Watched, places: Sequence[Tensor]) -> _Recorded | None:
        left = self._tapes.bytes_left
        recorder = Recorder(batch.tensors, places, may_draw=True, most_bytes=left, stops=True)
        withheld = WithheldCalls(self._counters, watched.notes.counted, recorder.want)

        def note(call: LogCall) -> None:
            if isinstance(call.value, Tensor):
                recorder.want(call.value)
            withheld.notes.log(call, call.value.detach() if isinstance(call.value, Tensor) else None)

        # The step may have to be taken again, on the batch as it is now.
        lent = [tensor.detach() for tensor in batch.tensors]
        with withheld.noted(), self._logs.told_to(note), recorder:
            found = self._differentiate(lent, batch.number)
        if found is None or withheld.why_not or not withheld.notes.is_like(watched.notes):
            return None
        loss, gradients = found
        computed = [gradient for gradient in gradients if gradient is not None]
        noted = withheld.notes.tensors
        tape = recorder.tape([loss, *noted], self._tapes.arena, computed=computed)
        if tape is None or not is_proven(tape, watched.taken, places):
            return None
        self._tapes.use(recorder.nbytes)
        own_loss, *others = tape.outputs
        own = iter(others[len(noted) :])
        played = withheld.notes.on(iter(others[: len(noted)]))
        taped = _Taped(
            tape,
            own_loss,
            played,
            [may_wait(note, played) for note in played],
            [None if gradient is None else next(own) for gradient in gradients],
        )
        return _Recorded(taped, loss, gradients, withheld.notes)
