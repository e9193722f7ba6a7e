"""Steps of one worker at a time that are taken by playing a tape, to the bits of the ordinary ones.

A step by itself may do anything in Python. So one is recorded only where all that it reads there is known
(``readings``), and changes nothing; a tape holds as long as that is the same. The optimizer's own step is no
part of it: learning rates may change as they like. How a step is recorded is in ``recording``, and which
tapes there are, in ``step_tapes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from fedlightning.local.engine import GradModeOff
from fedlightning.local.lean import ByGradients, LeanOptimization
from fedlightning.local.one_by_one.batches import VisitBatch
from fedlightning.local.one_by_one.counted_later import CountedLater
from fedlightning.local.one_by_one.logs import VisitLogs
from fedlightning.local.one_by_one.metric_calls import counters_of
from fedlightning.local.one_by_one.recording import StepRecorder
from fedlightning.local.one_by_one.step_notes import Counted
from fedlightning.local.one_by_one.step_tapes import StepTapes, Taped, Watched
from fedlightning.local.vectorised.fitness import reads_batch_idx
from fedlightning.local.visit import Visit


class StepsByTape:
    """Take the steps of a round by tapes, and record what there is none of yet.

    Args:
        tapes: The tapes.
        module: The module, whose steps are taken.
        optimization: Takes them otherwise.
        logs: Stands in for its ``log``.
        visit: Any of the visits.
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
        self._optimization = optimization
        self._logs = logs
        self._counts = CountedLater()
        self._passes_batch_idx = visit.passes_batch_idx
        self._recorder = StepRecorder(
            tapes,
            module,
            optimization,
            logs,
            counters_of(module),
            passes_batch_idx=visit.passes_batch_idx,
        )
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

    def _note_again(self, taped: Taped) -> None:
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
        found = self._recorder.watch(batch, key)
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

    def _take_recorded(self, batch: VisitBatch, key: Any, watched: Watched) -> Tensor | None:
        """Take a step while it is recorded; in the ordinary way, if it cannot be."""
        recorded = self._recorder.record(batch, watched)
        if recorded is None:
            self._tapes.give_up()
            return self._take_as_ever(batch)
        self._tapes.keep(key, recorded.taped)
        kept, results = recorded.loss.clone(), list[Any]()
        for note in recorded.notes.notes:
            note.do(self._logs, results)
        self._optimization.descend(recorded.gradients)
        return kept


def steps_by_tape(
    tapes: StepTapes,
    module: pl.LightningModule,
    optimization: LeanOptimization,
    logs: VisitLogs,
    kinds: Sequence[Any],
    visit: Visit,
    steps: int,
) -> StepsByTape | None:
    """Return what takes the steps of a round, or ``None`` where tapes cannot, or would not pay.

    Args:
        tapes: Those that there are.
        module: As of `StepsByTape`.
        optimization: Likewise.
        logs: Likewise.
        kinds: What batches are of.
        visit: As of `StepsByTape`.
        steps: Steps of the round.
    """
    if not isinstance(optimization, ByGradients) or torch.is_anomaly_enabled():
        return None
    if not tapes.begin_round(module, optimization, kinds, visit, steps):
        return None
    return StepsByTape(tapes, module, optimization, logs, visit)
