"""What ways of sampling have in common that leave workers out, and draw from the others as another does."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection

from typing_extensions import override

from fedlightning.algorithms.sampling.base import Cohort, Draw, Pool, Sampling


class NarrowedSampling(Sampling):
    """Draw as ``then`` does, from some of the workers.

    Attributes:
        then: How a cohort is drawn from those who are left.
    """

    then: Sampling

    def __post_init__(self) -> None:
        """Refuse what is no way of sampling.

        Raises:
            TypeError: ``then`` is none.
        """
        if not isinstance(self.then, Sampling):
            raise TypeError(f"then must be a way of sampling such as UniformSampling(), got {self.then!r}.")

    @abstractmethod
    def _left(self, draw: Draw) -> Collection[str]:
        """Return who may take part in a round."""

    @property
    @override
    def keeps_order(self) -> bool:
        return self.then.keeps_order

    @property
    @override
    def needs_average(self) -> bool:
        return self.then.needs_average

    @property
    @override
    def evaluates(self) -> bool:
        return self.then.evaluates

    @override
    def check_size(self, size: int | None) -> None:
        self.then.check_size(size)

    @override
    def check(self, pool: Pool, size: int | None) -> None:
        self.then.check(pool, size)

    @override
    def draw(self, draw: Draw) -> Cohort:
        there = draw.among(self._left(draw))
        return self.then.draw(there) if there.workers else Cohort(())

    def _mean_size_of(self, draw: Draw) -> float:
        """Return how many workers are drawn on average in a round like this one."""
        return self.then.mean_size(draw.among(self._left(draw)).pool, draw.size)
