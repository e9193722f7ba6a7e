"""What a study of a paper is made of: runs, and claims that these bear out or do not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import TypeAlias, TypeVar

from matplotlib.figure import Figure

from benchmarks.published.federation import Curve
from benchmarks.published.intervals import Interval, interval, rounds_to


class Job(ABC):
    """One run, as a frozen dataclass: its representation names it among runs that are finished."""

    @abstractmethod
    def run(self) -> Curve:
        """Train."""


Curves: TypeAlias = Mapping[Job, Curve]
Measure: TypeAlias = Callable[[Sequence[Job]], Curves]
Setting = TypeVar("Setting")


@dataclass(frozen=True)
class Effort:
    """Say how much to run.

    Args:
        seeds: Seeds of the draws of data that are reported.
        tuning: Seeds of those on which learning rates are chosen; others, so that the choice flatters nobody.
        quick: Whether only to try out that everything runs.
    """

    seeds: Sequence[int]
    tuning: Sequence[int]
    quick: bool = False


@dataclass(frozen=True)
class Claim:
    """Hold what a paper says beside what came out here.

    Args:
        paper: Where it says so.
        says: What.
        published: Its own figure.
        ours: What was measured: a ratio or a difference within draws of data.
        text: The same as text, with unit.
        beyond: The claim is borne out if all of the interval is above this.
    """

    paper: str
    says: str
    published: str
    ours: Interval
    text: str
    beyond: float

    @property
    def verdict(self) -> str:
        """``yes``, ``no`` where it is the other way round, or ``open`` where the interval holds both."""
        if isnan(self.ours.half):
            return "open"
        if self.ours.low > self.beyond:
            return "yes"
        return "no" if self.ours.high < self.beyond and not self.ours.at_least else "open"

    @property
    def cells(self) -> tuple[str, ...]:
        """The claim as a row."""
        return (self.paper, self.says, self.published, self.text, self.verdict)


CLAIMS_HEADER = ("paper", "claim", "published", "here (95% interval)", "holds")


@dataclass(frozen=True)
class Table:
    """Hold rows of text under a header."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Report:
    """Hold what a study came to.

    Args:
        claims: What was to be shown.
        details: The figures behind it.
        values: One row per run that is reported, for a file.
        figure: A picture of it.
    """

    claims: Sequence[Claim]
    details: Table
    values: Table
    figure: Figure


@dataclass(frozen=True)
class Crossings:
    """Hold after how many rounds each draw of data has reached a target.

    Args:
        rounds: One per draw; for those that have not, the most that were tried.
        missed: How many have not.
    """

    rounds: list[float]
    missed: int

    @property
    def interval(self) -> Interval:
        """Their mean."""
        return interval(self.rounds, at_least=self.missed > 0)

    @classmethod
    def of(cls, curves: Sequence[Curve], target: float, most: int) -> Crossings:
        """Find them.

        Args:
            curves: One per draw.
            target: An accuracy.
            most: The most rounds that a run may take.
        """
        found = [rounds_to(target, curve.rounds, curve.metrics["accuracy"]) for curve in curves]
        return cls([float(most) if one is None else one for one in found], found.count(None))


def ratio(slow: Crossings, fast: Crossings) -> Interval:
    """Return how many times as many rounds one takes as the other, draw by draw."""
    values = [a / b for a, b in zip(slow.rounds, fast.rounds, strict=True)]
    return interval(values, at_least=slow.missed > 0 and fast.missed == 0)


def difference(larger: Sequence[float], smaller: Sequence[float]) -> Interval:
    """Return by how much one exceeds the other, draw by draw."""
    return interval([a - b for a, b in zip(larger, smaller, strict=True)])


def fastest(
    settings: Sequence[Setting],
    jobs_of: Callable[[Setting], Sequence[Job]],
    curves: Curves,
    target: float,
    most: int,
) -> Setting:
    """Return the setting that reaches a target in the fewest rounds, on average over some draws.

    Args:
        settings: What to choose from, such as learning rates.
        jobs_of: The runs of a setting.
        curves: What they came to.
        target: An accuracy.
        most: The most rounds that a run may take; counted for those that do not reach the target.
    """

    def cost(setting: Setting) -> tuple[int, float]:
        crossings = Crossings.of([curves[job] for job in jobs_of(setting)], target, most)
        return crossings.missed, sum(crossings.rounds)

    return min(settings, key=cost)
