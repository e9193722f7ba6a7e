"""How steps of one worker at a time are recorded, to be played from then on.

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

from fedlightning.local.lean import ByGradients
from fedlightning.local.lightning_calls import LOGS_ALONE
from fedlightning.local.one_by_one.batches import VisitBatch
from fedlightning.local.one_by_one.counted_later import may_wait
from fedlightning.local.one_by_one.logs import LogCall, VisitLogs
from fedlightning.local.one_by_one.metric_calls import MadeCalls, WithheldCalls
from fedlightning.local.one_by_one.step_notes import StepNotes
from fedlightning.local.one_by_one.step_tapes import StepTapes, Taped, Watched
from fedlightning.local.tapes.held import HeldBefore, held_by
from fedlightning.local.tapes.proof import TakenStep, fill, is_proven, same_bits
from fedlightning.local.tapes.recorder import Recorder
from fedlightning.local.tapes.watching import Watch
from fedlightning.local.vectorised.metric_calls import Counter


@dataclass(frozen=True)
class Recorded:
    """A step that was recorded while it was taken.

    Args:
        taped: Its tape, which is proven.
        loss: Its loss.
        gradients: Its gradients.
        notes: What it logs and counts, which has not been done yet.
    """

    taped: Taped
    loss: Tensor
    gradients: Sequence[Tensor | None]
    notes: StepNotes


class StepRecorder:
    """Record steps of a round: watch one, record the next while it is taken, and prove the tape on the first.

    Args:
        tapes: Keeps the tapes.
        module: As of `StepsByTape`.
        optimization: Likewise.
        logs: Likewise.
        counters: Metrics of the module, which count beside what is recorded.
        passes_batch_idx: Whether ``training_step`` is passed the number of the batch.
    """

    def __init__(
        self,
        tapes: StepTapes,
        module: pl.LightningModule,
        optimization: ByGradients,
        logs: VisitLogs,
        counters: Sequence[Counter],
        *,
        passes_batch_idx: bool,
    ) -> None:
        self._tapes = tapes
        self._module = module
        self._optimization = optimization
        self._logs = logs
        self._counters = counters
        self._passes_batch_idx = passes_batch_idx

    def watch(self, batch: VisitBatch, key: Any) -> tuple[Tensor, Sequence[Tensor | None]] | None:
        """Compute a step in the ordinary way, and have the next one recorded, where it changes nothing.

        Args:
            batch: Its batch.
            key: What tells the step from others.

        Returns:
            The loss and the gradients, as of `ByGradients.differentiate`; ``None`` where the module skips the
            step.
        """
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
        is_changed = not all(map(same_bits, places, before))
        after = [place.clone() for place in places] if is_changed else before
        outputs = self._kept(found, made.notes)
        taken = TakenStep(batch.read_into, outputs, before, after, random, random_after)
        watched = Watched(taken, made.notes)
        if self._tapes.is_rare(key):
            self._record_again(batch, key, watched, places)
        else:
            self._tapes.wait_for(key, watched)
        return found

    def _kept(self, found: tuple[Tensor, Sequence[Tensor | None]], notes: StepNotes) -> list[Tensor]:
        """Return what a step has come to, to be compared after the optimizer has made use of it."""
        loss, gradients = found
        there = [gradient for gradient in gradients if gradient is not None]
        if not self._optimization.only_reads:
            there = [gradient.clone() for gradient in there]
        return [loss.clone(), *notes.tensors, *there]

    def record(self, batch: VisitBatch, watched: Watched) -> Recorded | None:
        """Take a step up to its gradients, and record it.

        Args:
            batch: Its batch.
            watched: A step that was watched; that may be this one.

        Returns:
            What has come of it; ``None`` where it cannot be made again, and all is as it was before.
        """
        places, held = self._places(), HeldBefore(self._module)
        before, random = [place.clone() for place in places], torch.get_rng_state()
        try:
            recorded = self._proven(batch, watched, places)
        except Exception:  # noqa: BLE001  # whatever it is: steps go on being taken in the ordinary way
            recorded = None
        if recorded is None:
            held.put_back()
            fill(places, before)
            torch.set_rng_state(random)
        return recorded

    def _record_again(self, batch: VisitBatch, key: Any, watched: Watched, places: Sequence[Tensor]) -> None:
        """Record the very step that was watched; all is as it has left it afterwards."""
        taken = watched.taken
        assert taken.after is not None
        assert taken.random is not None
        assert taken.random_after is not None
        try:
            fill(places, taken.before)
            torch.set_rng_state(taken.random)
            recorded = self.record(batch, watched)
        finally:
            fill(places, taken.after)
            torch.set_rng_state(taken.random_after)
        if recorded is None:
            self._tapes.give_up()
        else:
            self._tapes.keep(key, recorded.taped)

    def _proven(self, batch: VisitBatch, watched: Watched, places: Sequence[Tensor]) -> Recorded | None:
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
        taped = Taped(
            tape,
            own_loss,
            played,
            [may_wait(note, played) for note in played],
            [None if gradient is None else next(own) for gradient in gradients],
        )
        return Recorded(taped, loss, gradients, withheld.notes)

    def _differentiate(
        self, tensors: list[Tensor], number: int
    ) -> tuple[Tensor, Sequence[Tensor | None]] | None:
        return self._optimization.differentiate(tensors, number, passes_batch_idx=self._passes_batch_idx)

    def _places(self) -> list[Tensor]:
        return [tensor.detach() for tensor in self._optimization.trained()]
