"""What a run does about work that fails at a worker. The default is to stop: nothing is hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from fedlightning.strategy.errors import FailureKind

Reaction = Literal["stop", "skip"]
"""Stop the run, with the global module of the last completed round; or go on without the worker's update."""

NonfiniteReaction = Literal["keep", "skip", "stop"]
"""Average an update that is not finite like any other, as ordinary training would; leave it out; or stop."""


@dataclass(frozen=True)
class Tolerance:
    """Say which failures a run survives.

    What a failed visit has changed at its worker is undone. A skipped worker has no weight in the round's
    average, is named in the round's record with the reason, and takes part again when its turn comes.

    Args:
        on_error: When a step, or the loading of its batch, raises at a worker.
        on_lost: When a worker is gone, with its data.
        on_nonfinite: When a worker's loss, parameters or gradients hold NaN or infinity. ``"skip"`` and
            ``"stop"`` look at every update, which costs a pass over it.
        retries: How often a visit is repeated, from the same start with the same random numbers, before an
            error or a lost worker counts; for failures that pass.
        min_cohort: With fewer updates than this, an averaged round stops the run. At 0 it may be empty, as a
            sequential round always may: then the module stays as it is. So may, up to 1, a round that nobody
            was drawn for: nobody failed.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> Tolerance(on_lost="skip", min_cohort=3)
        Tolerance(on_error='stop', on_lost='skip', on_nonfinite='keep', retries=0, min_cohort=3)
    """

    on_error: Reaction = "stop"
    on_lost: Reaction = "stop"
    on_nonfinite: NonfiniteReaction = "keep"
    retries: int = 0
    min_cohort: int = 1

    def __post_init__(self) -> None:
        for name, choices in (
            ("on_error", get_args(Reaction)),
            ("on_lost", get_args(Reaction)),
            ("on_nonfinite", get_args(NonfiniteReaction)),
        ):
            if getattr(self, name) not in choices:
                expected = ", ".join(map(repr, choices))
                raise ValueError(f"{name} must be one of {expected}, got {getattr(self, name)!r}.")
        for name in ("retries", "min_cohort"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be a whole number of at least 0, got {value!r}.")

    def skips(self, kind: FailureKind) -> bool:
        """Tell whether the run goes on without a worker whose visit failed in this way."""
        return {"error": self.on_error, "lost": self.on_lost, "nonfinite": self.on_nonfinite}[kind] == "skip"

    @property
    def skipped_kinds(self) -> frozenset[FailureKind]:
        """The kinds of failures that the run goes on after."""
        return frozenset(kind for kind in get_args(FailureKind) if self.skips(kind))

    def retries_of(self, kind: FailureKind) -> int:
        """Return how often a visit that failed in this way is repeated."""
        # With the same random numbers, what is not finite would not be finite again.
        return 0 if kind == "nonfinite" else self.retries
