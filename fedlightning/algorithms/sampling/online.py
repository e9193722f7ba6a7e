"""Availability: only who is online in a round can take part in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from typing_extensions import override

from fedlightning.algorithms.sampling.base import Draw, Pool, Sampling, check_names
from fedlightning.algorithms.sampling.narrowing import NarrowedSampling
from fedlightning.algorithms.sampling.trace import Table, Trace, table_of
from fedlightning.algorithms.sampling.uniform import UniformSampling


@dataclass(frozen=True)
class OnlineWorkers(NarrowedSampling):
    """Draw from the workers that are online in a round, by a trace of who was when.

    Where fewer are online than ``cohort_size``, all of them take part; where nobody is, the round is empty.
    A trace begins again after its last round, as a day does.

    Args:
        trace: Who is online: a mapping from the round's number, or a list with an entry per round, to names;
            the path of a CSV file with the columns ``round`` and ``worker``, a row for each round that a
            worker is online; or a function from the round's number to names, which must always give the same.
        then: How the cohort is drawn from those that are online.

    Raises:
        TypeError: ``then`` is no way of sampling.
        ValueError: The trace has no round, or one that is not a number.

    Example:
        >>> from fedlightning.algorithms import Draw, Pool
        >>> pool = Pool(["alice", "bob", "carol"], samples={})
        >>> office_hours = OnlineWorkers([["alice", "bob"], ["carol"], []])
        >>> [office_hours.draw(Draw(pool, 2, seed=0, round=number)).workers for number in range(4)]
        [('alice', 'bob'), ('carol',), (), ('alice', 'bob')]
    """

    trace: Trace | Callable[[int], Iterable[str]] = field(repr=False)
    then: Sampling = field(default_factory=UniformSampling)
    _table: Table | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.trace):
            table = table_of(self.trace)
            # What a file says now, not when it is asked: it may change.
            object.__setattr__(self, "_table", table)
            object.__setattr__(self, "trace", table)

    @override
    def check(self, pool: Pool, size: int | None) -> None:
        super().check(pool, size)
        if self._table is None:
            return
        check_names("trace", self._ever, pool)
        if not self.eligible(pool):
            raise ValueError(
                f"trace has nobody online in any of its {len(self._table)} rounds whom {self.then} could "
                "draw. Name workers that are online."
            )

    @override
    def eligible(self, pool: Pool) -> Sequence[str]:
        eligible = self.then.eligible(pool)
        return eligible if self._table is None else [name for name in eligible if name in self._ever]

    @override
    def mean_size(self, pool: Pool, size: int | None) -> float:
        if self._table is None:
            return self.then.mean_size(pool, size)
        draws = (Draw(pool, size, seed=0, round=number) for number in range(len(self._table)))
        sizes = [self._mean_size_of(draw) for draw in draws]
        return sum(sizes) / len(sizes)

    @property
    def _ever(self) -> frozenset[str]:
        return frozenset[str]().union(*(self._table or ()))

    @override
    def _left(self, draw: Draw) -> frozenset[str]:
        if self._table is not None:
            return self._table[draw.round % len(self._table)]
        assert callable(self.trace)
        return frozenset(self.trace(draw.round))
