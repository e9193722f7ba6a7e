"""Steps of one worker at a time that are taken by playing a tape, to the bits of the ordinary ones.

A step by itself may do anything in Python. So one is recorded only where all that it reads there is known
(``readings``), and changes nothing; a tape holds as long as that is the same. The optimizer's own step is no
part of it: learning rates may change as they like.
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
from fedlightning.local.tapes.held import held_by
from fedlightning.local.tapes.proof import fill, is_proven
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


class StepTapes:
    """The tapes of a module's steps, from round to round."""

    def __init__(self) -> None:
        self._arena = Arena()
        self._tapes: dict[Any, _Taped | None] = {}
        self._seen: set[Any] = set()
        self._module: pl.LightningModule | None = None
        self._terms: Any = None
        self._readings: Readings | None = None
        self._has_changed = False
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
        terms = [*kinds, visit.passes_batch_idx, type(optimization), [*map(id, optimization.trained())]]
        if module is not self._module or terms != self._terms:
            self._forget()
            self._module, self._terms, self._has_changed = module, terms, False
        elif self._tapes and not self._read().are_the_same():
            self._forget()
            # What has once changed will do so again.
            self._has_changed = True
        if self._read().why_not or (self._has_changed and steps < USES):
            return None
        return StepsByTape(self, module, optimization, logs, visit)

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
            return True
        self._seen.add(key)
        return False

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
        if any(self._tapes.values()):
            self._read().look_again()
        if self._read().why_not:
            self._tapes.clear()

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
        if not self._tapes.is_due(key) or self._is_large():
            taken = self._optimization.take(
                batch.tensors, batch.number, passes_batch_idx=self._passes_batch_idx
            )
            self._tapes.look_again()
            return taken
        found = self._recorded(batch, key)
        if found is None:
            self._optimization.skip()
            return None
        loss, gradients = found
        kept = loss.clone()
        self._optimization.descend(gradients)
        return kept

    def _is_large(self) -> bool:
        """Tell whether gradients alone are more than what a step may compute to be recorded."""
        return sum(tensor.nbytes for tensor in self._optimization.trained()) > self._tapes.bytes_left

    def _recorded(self, batch: VisitBatch, key: Any) -> tuple[Tensor, Sequence[Tensor | None]] | None:
        """Compute a step in the ordinary way, and once more to record it, where that changes nothing."""
        places = [tensor.detach() for tensor in self._optimization.trained()]
        before, random = [place.clone() for place in places], torch.get_rng_state()
        held = held_by(self._module, apart=self._counters)
        watch = Watch(LOGS_ALONE)
        made = MadeCalls(self._counters, watch.looking_away)

        def note(call: LogCall) -> None:
            made.notes.log(call, call.value.detach().clone() if isinstance(call.value, Tensor) else None)

        with made.noted(), self._logs.told_to(note, records=True), watch:
            found = self._differentiate(batch)
        self._tapes.readings.add(watch)
        if held_by(self._module, apart=self._counters) != held:
            self._tapes.readings.why_not = "the step changes its module"
        self._tapes.keep(key, None)
        self._tapes.look_again()
        if found is None or self._tapes.readings.why_not:
            return found
        after, random_after = [place.clone() for place in places], torch.get_rng_state()
        made.check_order(random_after)
        if made.why_not or made.notes.why_not_again():
            self._tapes.give_up()
            return found
        try:
            fill(places, before)
            torch.set_rng_state(random)
            taped = self._tape_of(batch, found, made.notes, places, before, random)
        except Exception:  # noqa: BLE001  # whatever it is: steps go on being taken in the ordinary way
            taped = None
        finally:
            fill(places, after)
            torch.set_rng_state(random_after)
        self._tapes.keep(key, taped)
        if taped is None:
            self._tapes.give_up()
        return found

    def _differentiate(self, batch: VisitBatch) -> tuple[Tensor, Sequence[Tensor | None]] | None:
        return self._optimization.differentiate(
            batch.tensors, batch.number, passes_batch_idx=self._passes_batch_idx
        )

    def _tape_of(
        self,
        batch: VisitBatch,
        found: tuple[Tensor, Sequence[Tensor | None]],
        notes: StepNotes,
        places: Sequence[Tensor],
        before: Sequence[Tensor],
        random: Tensor,
    ) -> _Taped | None:
        """Record a step, and return its tape if that comes to what was found in the ordinary way."""
        left = self._tapes.bytes_left
        recorder = Recorder(batch.tensors, places, may_draw=True, most_bytes=left, stops=True)
        withheld = WithheldCalls(self._counters, notes.counted, recorder.want)

        def note(call: LogCall) -> None:
            if isinstance(call.value, Tensor):
                recorder.want(call.value)
            withheld.notes.log(call, call.value.detach() if isinstance(call.value, Tensor) else None)

        with withheld.noted(), self._logs.told_to(note), recorder:
            again = self._differentiate(batch)
        if again is None or withheld.why_not or not withheld.notes.is_like(notes):
            return None
        noted = notes.tensors
        computed = [gradient for gradient in again[1] if gradient is not None]
        tape = recorder.tape([again[0], *withheld.notes.tensors], self._tapes.arena, computed=computed)
        expected = [found[0], *noted, *(gradient for gradient in found[1] if gradient is not None)]
        if tape is None or not is_proven(tape, batch.read_into, expected, places, before, random):
            return None
        self._tapes.use(recorder.nbytes)
        loss, *others = tape.outputs
        gradients = iter(others[len(noted) :])
        played = withheld.notes.on(iter(others[: len(noted)]))
        return _Taped(
            tape,
            loss,
            played,
            [may_wait(note, played) for note in played],
            [None if gradient is None else next(gradients) for gradient in again[1]],
        )
