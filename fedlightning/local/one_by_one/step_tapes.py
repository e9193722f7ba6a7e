"""The tapes of a module's steps, one worker's at a time, from round to round: which there are, which hold.

How steps are recorded is in ``recording``; how they are taken, in ``taped``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from fedlightning.local.lean import ByGradients
from fedlightning.local.one_by_one.metric_calls import beside
from fedlightning.local.one_by_one.step_notes import Note, StepNotes
from fedlightning.local.tapes.arena import Arena
from fedlightning.local.tapes.proof import TakenStep
from fedlightning.local.tapes.readings import Readings
from fedlightning.local.tapes.tape import Tape
from fedlightning.local.visit import Visit

USES = 16
"""Steps of a round for which tapes are worth their recording, where they do not last for longer."""

MOST_TAPES = 64
"""How many different steps are recorded, at most: of batches of so many sizes."""

MOST_BYTES = 1 << 28
"""What recorded steps may compute in all: all of it is kept meanwhile, and much of it for good."""


@dataclass(frozen=True)
class Taped:
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
class Watched:
    """A step that was watched, and of which another is to be recorded.

    Args:
        taken: The step.
        notes: What it has logged and counted.
    """

    taken: TakenStep
    notes: StepNotes


class StepTapes:
    """The tapes of a module's steps, from round to round."""

    def __init__(self) -> None:
        self._arena = Arena()
        self._tapes: dict[Any, Taped | None] = {}
        self._seen: set[Any] = set()
        self._waiting: tuple[Any, Watched] | None = None
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

    def begin_round(
        self,
        module: pl.LightningModule,
        optimization: ByGradients,
        kinds: Sequence[Any],
        visit: Visit,
        steps: int,
    ) -> bool:
        """Forget tapes that do not hold any more, and tell whether steps of a round may be taken by tapes.

        Args:
            module: The module, whose steps are taken.
            optimization: Takes them otherwise.
            kinds: What batches are of.
            visit: Any of the visits.
            steps: Steps of the round.

        Returns:
            Whether they may, and recording would pay.
        """
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
        return not self._read().why_not and not (self._has_changed and steps < USES)

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

    def found(self, key: Any) -> Taped | None:
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

    def wait_for(self, key: Any, watched: Watched) -> None:
        """Have the next step recorded, if there is one in the round: what it reads may change after that.

        Args:
            key: As for `found`.
            watched: A step that was watched.
        """
        self._waiting = key, watched

    def take_watched(self, key: Any) -> Watched | None:
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

    def keep(self, key: Any, taped: Taped | None) -> None:
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
