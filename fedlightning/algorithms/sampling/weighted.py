"""Cohorts drawn by weight: large workers, or whom the user favours, take part more often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from fedlightning.algorithms.sampling.base import Cohort, Draw, Pool, Sampling, check_names


@dataclass(frozen=True)
class WeightedSampling(Sampling):
    """Draw ``cohort_size`` times, each worker with a chance in proportion to its weight.

    Who is drawn by weight must not be weighted once more in the average. Each *draw* therefore counts alike,
    whatever the worker's samples: somebody who was drawn twice trains once and counts twice. With
    replacement this is Scheme I of Li et al. 2020 ("On the Convergence of FedAvg on Non-IID Data", section
    3.2): with the weights ``p_k`` it estimates ``sum_k p_k w_k`` without bias, which is the average over
    *all* workers, by samples unless ``weights`` says otherwise. A cohort may then have fewer than
    ``cohort_size`` workers.

    Without replacement a cohort has ``cohort_size`` different workers, one after another drawn from those
    that are left. The chance of a large worker then falls short of its weight, so the average leans towards
    small workers; only for equal weights is there no bias.

    Args:
        weights: A positive number for every worker, by name; ``None`` for their numbers of samples.
        replace: Whether a worker can be drawn more than once.

    Raises:
        ValueError: A weight is not positive and finite.

    Example:
        >>> from fedlightning.algorithms import Draw, Pool
        >>> pool = Pool(["alice", "bob"], samples={"alice": 10, "bob": 990})
        >>> WeightedSampling().draw(Draw(pool, size=4, seed=0, round=0))
        Cohort(workers=('bob',), weights=(4.0,))
    """

    weights: Mapping[str, float] | None = None
    replace: bool = True

    def __post_init__(self) -> None:
        for name, weight in (self.weights or {}).items():
            if not (isfinite(weight) and weight > 0):
                raise ValueError(
                    f"weights[{name!r}]={weight!r} must be a positive finite number. To leave a worker out, "
                    "draw from the others: TaggedWorkers or FixedOrder."
                )
        if self.weights is not None and not self.weights:
            raise ValueError("weights is empty. Give every worker a weight, or leave it out.")
        if self.weights is not None:
            object.__setattr__(self, "weights", dict(self.weights))

    @property
    @override
    def needs_average(self) -> bool:
        return self.replace

    @override
    def check(self, pool: Pool, size: int | None) -> None:
        super().check(pool, size)
        if self.weights is None:
            return
        check_names("weights", self.weights, pool)
        missing = [name for name in pool.workers if name not in self.weights]
        if missing:
            raise ValueError(
                f"weights has no weight for workers {missing[:5]}. Give one for each of the "
                f"{len(pool.workers)} workers."
            )

    @override
    def mean_size(self, pool: Pool, size: int | None) -> float:
        if not self.replace:
            return super().mean_size(pool, size)
        draws = len(pool.workers) if size is None else size
        return float((1 - (1 - shares_of(pool, self.weights)) ** draws).sum())

    @override
    def draw(self, draw: Draw) -> Cohort:
        shares = shares_of(draw.pool, self.weights)
        generator = draw.generator()
        if not self.replace:
            chosen = generator.choice(len(shares), size=draw.count, replace=False, p=shares)
            return Cohort(tuple(draw.workers[position] for position in sorted(chosen)), (1.0,) * len(chosen))
        draws = len(shares) if draw.size is None else draw.size
        times = generator.multinomial(draws if len(shares) else 0, shares)
        drawn = np.flatnonzero(times).tolist()
        return Cohort(tuple(draw.workers[p] for p in drawn), tuple(float(times[p]) for p in drawn))


def shares_of(pool: Pool, weights: Mapping[str, float] | None = None) -> npt.NDArray[np.float64]:
    """Return each worker's share of all weights, or of all samples; they add up to 1.

    Args:
        pool: Who there is.
        weights: A weight by name; ``None`` for the numbers of samples.

    Returns:
        Shape ``(workers,)``, in the order of the names.
    """
    given = pool.samples if weights is None else weights
    numbers = np.fromiter((given[name] for name in pool.workers), np.float64, len(pool.workers))
    return numbers / numbers.sum() if len(numbers) else numbers
