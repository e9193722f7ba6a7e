"""Workers in turn: nothing is drawn, and everybody takes part equally often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from fedlightning.algorithms.sampling.base import Cohort, Draw, Pool, Sampling, check_names


@dataclass(frozen=True)
class RoundRobin(Sampling):
    """Take the next ``cohort_size`` workers, by name, and begin again after the last one.

    After any number of rounds, any two workers have taken part equally often, but for one round.

    Example:
        >>> from fedlightning.algorithms import Draw, Pool
        >>> pool = Pool(["alice", "bob", "carol"], samples={})
        >>> [RoundRobin().draw(Draw(pool, size=2, seed=0, round=r)).workers for r in range(3)]
        [('alice', 'bob'), ('carol', 'alice'), ('bob', 'carol')]
    """

    @property
    @override
    def keeps_order(self) -> bool:
        return True

    @override
    def draw(self, draw: Draw) -> Cohort:
        return Cohort(in_turn(draw.workers, draw.count, draw.round))


@dataclass(frozen=True)
class FixedOrder(Sampling):
    """Take the next ``cohort_size`` workers of a list, and begin again after its end.

    Without a ``cohort_size``, the list is the cohort of every round. A sequential run visits the workers in
    this order. Workers that are not listed never take part.

    Args:
        order: Names of workers, each once.

    Raises:
        ValueError: The list is empty, or has a name twice.

    Example:
        >>> from fedlightning.algorithms import Draw, Pool
        >>> pool = Pool(["alice", "bob", "carol"], samples={})
        >>> FixedOrder(["carol", "alice"]).draw(Draw(pool, size=1, seed=0, round=3)).workers
        ('alice',)
    """

    order: Sequence[str]

    def __post_init__(self) -> None:
        if isinstance(self.order, str) or len(self.order) == 0:
            raise ValueError(
                f"order={self.order!r} must list the names of workers, such as ['bob', 'alice']."
            )
        twice = sorted({name for name in self.order if list(self.order).count(name) > 1})
        if twice:
            raise ValueError(f"order names {twice} more than once. Name each worker once.")
        object.__setattr__(self, "order", tuple(self.order))

    @property
    @override
    def keeps_order(self) -> bool:
        return True

    @override
    def check_size(self, size: int | None) -> None:
        if size is not None and size > len(self.order):
            raise ValueError(
                f"cohort_size={size} is larger than the order of {len(self.order)} workers. List more "
                "workers, or leave cohort_size out to take all that are listed."
            )

    @override
    def check(self, pool: Pool, size: int | None) -> None:
        super().check(pool, size)
        check_names("order", self.order, pool)

    @override
    def eligible(self, pool: Pool) -> Sequence[str]:
        return sorted(set(self.order) & set(pool.workers))

    @override
    def draw(self, draw: Draw) -> Cohort:
        there = set(draw.workers)
        order = [name for name in self.order if name in there]
        return Cohort(in_turn(order, min(draw.count, len(order)), draw.round))


def in_turn(names: Sequence[str], size: int, round: int) -> tuple[str, ...]:
    """Return the names whose turn it is.

    Args:
        names: All names, in the order of their turns.
        size: How many have their turn at once, at most as many as there are.
        round: Number of the turn, from 0.
    """
    first = round * size
    return tuple(names[(first + position) % len(names)] for position in range(size))
