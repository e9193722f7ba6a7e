"""Statistics of what several draws of data came to. Nothing here knows what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev

from scipy.stats import t

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """Hold a mean and how far off it may be.

    Args:
        middle: The mean.
        half: Half of the width of Student's interval.
        at_least: Whether some of the values are only known to be that large, or larger.
    """

    middle: float
    half: float
    at_least: bool = False

    @property
    def low(self) -> float:
        """The lower end."""
        return self.middle - self.half

    @property
    def high(self) -> float:
        """The upper end."""
        return self.middle + self.half

    def text(self, decimals: int = 1, unit: str = "") -> str:
        """Return it as text, such as ``3.2 ± 0.4``."""
        bound = "≥ " if self.at_least else ""
        return f"{bound}{self.middle:.{decimals}f}{unit} ± {self.half:.{decimals}f}"


def interval(values: Sequence[float], *, at_least: bool = False) -> Interval:
    """Return the mean and its 95% interval by Student's t.

    Args:
        values: One per draw of data.
        at_least: As in `Interval`.
    """
    if len(values) < 2:
        return Interval(mean(values), float("nan"), at_least)
    quantile = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return Interval(mean(values), quantile * stdev(values) / sqrt(len(values)), at_least)


def rounds_to(target: float, rounds: Sequence[int], accuracies: Sequence[float]) -> float | None:
    """Return after how many rounds a curve first reaches a target; ``None`` if it does not.

    The best so far is what counts, and between two tests it rises along a line (McMahan et al. 2017,
    section 3).

    Args:
        target: An accuracy.
        rounds: Rounds trained before each test.
        accuracies: What came out.
    """
    best, before = 0.0, 0
    for round, accuracy in zip(rounds, accuracies, strict=True):
        if accuracy >= target:
            return before + (round - before) * (target - best) / (accuracy - best)
        if accuracy > best:
            best = accuracy
        before = round
    return None
