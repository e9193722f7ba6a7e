"""Steps that are taken by playing a tape: when one is recorded, and for how long it holds.

A step may read in Python what changes between rounds (its epoch, a factor that a callback sets). So tapes
hold for one round, or as long as all that has been read is known and the same (``readings``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_unflatten

from fedlightning.local.tapes.arena import Arena
from fedlightning.local.tapes.proof import TakenStep, is_proven
from fedlightning.local.tapes.readings import Readings
from fedlightning.local.tapes.recorder import Recorder
from fedlightning.local.tapes.tape import Tape
from fedlightning.local.tapes.watching import Watch
from fedlightning.local.vectorised.gradients import Factors, Gradients
from fedlightning.local.vectorised.logs import ChunkLogs, Notes
from fedlightning.local.vectorised.stacked_batch import StackedBatch

USES = 8
"""Steps of a round for which tapes are worth their recording, which takes as long as ten steps by tape."""

MOST_BYTES = 1 << 28
"""What a step of one worker may compute to be recorded: all is kept meanwhile, and much of it for good."""


@dataclass(frozen=True)
class _Taped:
    """A tape and what belongs to it in Python.

    Args:
        tape: The tape: what comes out are losses, what was logged and counted, and gradients.
        notes: What the step has noted.
        batch: One worker's batch, of which only shapes are looked at.
        whole: For each trained parameter whether its gradient is there as a whole.
        weights: Which weights' gradients there are factors of.
    """

    tape: Tape
    notes: Notes
    batch: Any
    whole: Sequence[bool]
    weights: Sequence[int]

    def gradients(self, losses: Tensor, logged: Sequence[Tensor], others: Iterator[Tensor]) -> Gradients:
        """Return what a play has computed.

        Args:
            losses: The losses.
            logged: What was logged and counted.
            others: What else came out.
        """
        whole = [next(others) if there else None for there in self.whole]
        factors = [Factors(weight, next(others), next(others)) for weight in self.weights]
        return Gradients(losses, whole, factors, logged)


class TapedSteps:
    """Take steps by tapes, where there are some.

    Args:
        module: The module.
        replaced: Its tensors that have others in their places during a step.
        places: The memory of those.
        alone: Whether steps are those of one worker, not under vmap: these may ask for a number in ways that
            are not seen, and have tapes only where all that they read in Python is known.
        draws: Whether steps draw random numbers, from torch's default generator.
    """

    def __init__(
        self,
        module: nn.Module,
        replaced: Sequence[Tensor],
        places: Sequence[Tensor],
        *,
        alone: bool = False,
        draws: bool = False,
    ) -> None:
        self._module = module
        self._replaced = replaced
        self._places = places
        self._alone = alone
        self._draws = draws
        self._arena = Arena()
        self._tapes: dict[Any, _Taped | None] = {}
        self._seen: set[Any] = set()
        self._readings = Readings(module, replaced)
        self._may_last = True
        self._round: int | None = None
        self._settings: Any = None

    def plays(self, batch: StackedBatch) -> bool:
        """Tell whether there is a tape that holds for a step on such a batch.

        Args:
            batch: The workers' batches.
        """
        return self._tapes.get(_key_of(batch)) is not None

    def pay(self, steps: int) -> bool:
        """Tell whether tapes are worth their recording.

        Args:
            steps: Steps of a round.
        """
        if self._is_refused:
            return False
        return steps >= USES or (self._may_last and not self._readings.why_not)

    def hold_for(self, round: int, settings: Any) -> None:
        """Forget tapes that do not hold any more.

        Args:
            round: The round that begins or goes on.
            settings: What steps depend on beside it: anything that can be compared.
        """
        if self._is_refused or (round, settings) == (self._round, self._settings):
            return
        if settings != self._settings or not (self._may_last and self._readings.are_the_same()):
            # What has once changed will do so again.
            self._may_last = self._may_last and not self._tapes
            self._tapes.clear()
            self._seen.clear()
            self._readings = Readings(self._module, self._replaced)
        self._round, self._settings = round, settings

    def take(self, batch: StackedBatch, logs: ChunkLogs, step: Callable[[], Gradients]) -> Gradients:
        """Take a step by a tape, or record one: at the second use, since many shapes come only once.

        Args:
            batch: The workers' batches.
            logs: Where what is logged goes.
            step: Takes the step in the ordinary way, on that batch.
        """
        key = _key_of(batch)
        taped = self._tapes.get(key)
        if taped is not None:
            return _played(taped, batch, logs)
        if key in self._tapes or self._is_refused:
            return step()
        if key in self._seen:
            return self._recorded(key, batch, logs, step)
        self._seen.add(key)
        return step()

    @property
    def _is_refused(self) -> bool:
        """Whether there are no tapes, for good, of what is not known."""
        return self._alone and bool(self._readings.why_not)

    def _recorded(
        self, key: Any, batch: StackedBatch, logs: ChunkLogs, step: Callable[[], Gradients]
    ) -> Gradients:
        places = [place[batch.rows] for place in self._places]
        before = [place.clone() for place in places]
        watch = Watch() if self._alone or self._may_last else None
        random = torch.get_rng_state() if self._draws else None
        most = MOST_BYTES if self._alone else None
        recorder = Recorder(batch.tensors, self._places, may_draw=self._draws, most_bytes=most)
        with recorder, watch or nullcontext():
            result = step()
        if watch is not None:
            self._readings.add(watch)
        if self._is_refused:
            self._tapes.clear()
            return result
        whole = [gradient for gradient in result.whole if gradient is not None]
        factors = [tensor for own in result.factors for tensor in (own.inputs, own.outer)]
        outputs = [result.losses, *result.logged, *whole, *factors]
        tape = recorder.tape(outputs, self._arena)
        self._tapes[key] = None
        random_after = torch.get_rng_state() if self._draws else None
        taken = TakenStep(batch.read_into, outputs, before, random=random, random_after=random_after)
        if tape is not None and is_proven(tape, taken, places):
            one = tree_unflatten([tensor[0] for tensor in tape.inputs], batch.structure)
            there = [gradient is not None for gradient in result.whole]
            weights = [own.weight for own in result.factors]
            self._tapes[key] = _Taped(tape, logs.notes, one, there, weights)
        return result


def _played(taped: _Taped, batch: StackedBatch, logs: ChunkLogs) -> Gradients:
    tape, count = taped.tape, 1 + taped.notes.tensors
    batch.read_into(tape.inputs)
    tape.play()
    # The next play overwrites them; gradients have been made use of by then.
    losses, *logged = [tensor.clone() for tensor in tape.outputs[:count]]
    logs.repeat(taped.notes, taped.batch, batch.rows, logged)
    return taped.gradients(losses, logged, iter(tape.outputs[count:]))


def _key_of(batch: StackedBatch) -> Any:
    return batch.kinds, batch.structure, batch.batch_idx, batch.rows.start, batch.rows.stop
