"""Cohorts chosen by a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from typing_extensions import override

from fedlightning.algorithms.sampling.base import Cohort, Draw, Sampling, check_names

Choice: TypeAlias = Iterable[str] | Mapping[str, float] | Cohort


@dataclass(frozen=True)
class ChosenBy(Sampling):
    """Ask a function who takes part.

    A run that goes on from a checkpoint draws the same cohorts if the function is pure: let it depend on
    what it is given, and draw random numbers from ``draw.generator()``.

    Args:
        function: Takes a `Draw` (names, sizes, seed, round, losses) and returns names, in the order in which
            a sequential run visits them; or a mapping from names to their weights in the average.

    Raises:
        TypeError: It is no function.

    Example:
        >>> from fedlightning.algorithms import Draw, Pool
        >>> pool = Pool(["alice", "bob", "carol"], samples={"alice": 5, "bob": 50, "carol": 70})
        >>> large = ChosenBy(lambda draw: [name for name in draw.workers if draw.samples[name] > 20])
        >>> large.draw(Draw(pool, size=None, seed=0, round=0)).workers
        ('bob', 'carol')
    """

    function: Callable[[Draw], Choice]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(
                f"function must take a Draw and return names of workers, got {self.function!r}. Give a "
                "function such as lambda draw: draw.workers[:2]."
            )

    @property
    @override
    def keeps_order(self) -> bool:
        return True

    @override
    def draw(self, draw: Draw) -> Cohort:
        choice = self.function(draw)
        if isinstance(choice, Mapping):
            choice = Cohort(tuple(choice), tuple(map(float, choice.values())))
        cohort = choice if isinstance(choice, Cohort) else Cohort(tuple(choice))
        check_names(f"the function of {type(self).__name__}", cohort.workers, draw.pool)
        return cohort
