"""Pools, draws and counts that the tests of sampling share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedlightning.algorithms import Cohort, Draw, Pool, Sampling


@dataclass
class GivenLosses:
    """Losses that the test has written down; remembers who was asked."""

    measured: Mapping[str, float] = field(default_factory=dict)
    reported: Mapping[str, float] = field(default_factory=dict)
    asked: list[tuple[tuple[str, ...], int | None]] = field(default_factory=list)

    def evaluate(self, workers: Sequence[str], *, batches: int | None) -> Mapping[str, float]:
        self.asked.append((tuple(workers), batches))
        return {name: self.measured[name] for name in workers if name in self.measured}


def pool_of(count: int, samples: Mapping[str, int] | None = None) -> Pool:
    names = [f"w{number:02d}" for number in range(count)]
    return Pool(names, dict.fromkeys(names, 10) if samples is None else samples)


def cohorts(
    sampling: Sampling, pool: Pool, size: int | None, rounds: int, *, seed: int = 0, **settings: object
) -> list[Cohort]:
    return [sampling.draw(Draw(pool, size, seed, number, **settings)) for number in range(rounds)]


def participations(drawn: Sequence[Cohort]) -> Counter[str]:
    return Counter(name for cohort in drawn for name in cohort.workers)


def deviations(count: float, rounds: int, chance: float) -> float:
    """Return how far a binomial count is from its mean, in standard deviations."""
    variance = rounds * chance * (1 - chance)
    return abs(count - rounds * chance) / max(variance, 1e-12) ** 0.5


BOUND = 5.0
"""Standard deviations that a count may be off. By chance, fewer than one in 20,000 counts is further off (by
Bernstein's inequality, for a standard deviation of 10 or more). All draws are seeded: a test that passes once
passes always."""
