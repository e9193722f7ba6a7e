"""Cohorts drawn uniformly: every worker with the same chance. What is usual, and the default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from fedlightning.algorithms.sampling.base import Cohort, Draw, Pool, Sampling


@dataclass(frozen=True)
class UniformSampling(Sampling):
    """Draw a cohort uniformly, without replacement (McMahan et al. 2017, Algorithm 1).

    Its updates are averaged by samples. Each worker has the chance ``cohort_size / workers``, whatever else
    happens. The draw depends on the set of names, not on the order in which they are listed.

    Example:
        >>> from fedlightning.algorithms import Draw, Pool
        >>> pool = Pool(["alice", "bob", "carol"], samples={})
        >>> UniformSampling().draw(Draw(pool, size=3, seed=0, round=7)).workers
        ('alice', 'bob', 'carol')
    """

    @override
    def draw(self, draw: Draw) -> Cohort:
        names, count = draw.workers, draw.count
        if count == len(names):
            return Cohort(tuple(names))
        # The price is that of the cohort, however many workers there are.
        chosen = draw.generator().choice(len(names), size=count, replace=False)
        return Cohort(tuple([names[position] for position in sorted(chosen.tolist())]))


def uniform_cohort(workers: Sequence[str], size: int, *, seed: int, round: int) -> tuple[str, ...]:
    """Draw the cohort that a strategy draws unless told otherwise, for loops of one's own.

    Args:
        workers: Names of all workers, in any order.
        size: Number of workers to draw. At ``len(workers)``, everybody takes part and nothing is drawn.
        seed: Seed of the run.
        round: Number of the round.

    Returns:
        The cohort's names, sorted.

    Example:
        >>> uniform_cohort(["carol", "bob", "alice"], 2, seed=0, round=7)
        ('bob', 'carol')
    """
    draw = Draw(Pool(sorted(workers), samples={}), size=size, seed=seed, round=round)
    return UniformSampling().draw(draw).workers
