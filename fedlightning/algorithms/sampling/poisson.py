"""Poisson sampling: every worker decides for itself, by chance, whether it takes part."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from fedlightning.algorithms.sampling.base import Cohort, Draw, Pool, Sampling
from fedlightning.data.checks import check_real


@dataclass(frozen=True)
class PoissonSampling(Sampling):
    """Let each worker take part with the same chance, independently of all others.

    Cohorts differ in size: a binomial number, with mean ``rate * workers``. This is what the accounting of
    differential privacy assumes (McMahan et al. 2018, "Learning Differentially Private Recurrent Language
    Models", Algorithm 1), and a model of devices that come and go.

    A round in which nobody takes part is empty: the global model stays as it is and the round counts. From
    ``Tolerance(min_cohort=2)`` on, rounds that are too small stop the run.

    Args:
        rate: The chance of each worker, above 0 and at most 1; ``None`` for ``cohort_size / workers``, so
            that ``cohort_size`` is the mean.

    Raises:
        ValueError: The rate is out of range.

    Example:
        >>> from fedlightning.algorithms import Draw, Pool
        >>> pool = Pool([f"worker-{number}" for number in range(10)], samples={})
        >>> [len(PoissonSampling(0.3).draw(Draw(pool, None, seed=0, round=r)).workers) for r in range(6)]
        [0, 5, 3, 6, 2, 2]
    """

    rate: float | None = None

    def __post_init__(self) -> None:
        if self.rate is None:
            return
        check_real("rate", self.rate, zero_allowed=False, remedy="Give the chance of a worker, such as 0.1.")
        if self.rate > 1:
            raise ValueError(f"rate={self.rate} is a chance, and must be at most 1. Give 0.1 for 10%.")

    @property
    @override
    def needs_average(self) -> bool:
        return True

    @override
    def check_size(self, size: int | None) -> None:
        if (self.rate is None) == (size is None):
            raise ValueError(
                f"PoissonSampling(rate={self.rate}) and cohort_size={size}: the mean size of a cohort must "
                "be given once. Use PoissonSampling() with cohort_size, or PoissonSampling(rate) without."
            )

    @override
    def mean_size(self, pool: Pool, size: int | None) -> float:
        workers = len(pool.workers)
        return self.rate * workers if self.rate is not None else super().mean_size(pool, size)

    @override
    def draw(self, draw: Draw) -> Cohort:
        names, generator = draw.workers, draw.generator()
        rate = self.rate if self.rate is not None else draw.count / max(len(names), 1)
        # How many there are of independent choices, and then who: the price is that of the cohort.
        count = generator.binomial(len(names), rate)
        if count == 0:
            return Cohort(())
        chosen = generator.choice(len(names), size=count, replace=False)
        return Cohort(tuple(names[position] for position in sorted(chosen)))
