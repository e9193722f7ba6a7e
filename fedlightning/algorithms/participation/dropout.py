"""Worker dropout: workers that take part in a round and are gone before they can report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from typing_extensions import override

from fedlightning.algorithms.participation.base import Forecast, Participation, without
from fedlightning.algorithms.plan import Plan
from fedlightning.algorithms.sampling.trace import Table, Trace, table_of
from fedlightning.data.checks import check_real
from fedlightning.workers.random import derive_seed


@dataclass(frozen=True)
class WorkerDropout(Participation):
    """Lose the updates of some workers of each cohort, by rate or by trace.

    A worker that drops out has no weight in the round's average; where everybody does, the global model stays
    as it is and the round counts. Who is not even asked, because nobody can reach it, is for ``sampling`` to
    say (`OnlineWorkers`).

    Args:
        rate: The chance of a worker to drop out of a round, from 0 to 1; or a mapping from names to chances,
            where whom it does not name never drops out.
        trace: Who drops out in which round, in place of ``rate``: names by round, in any of the forms of
            `OnlineWorkers`. A trace begins again after its last round.

    Raises:
        TypeError: Both are given, or neither.
        ValueError: A rate is out of range, or the trace has no round, or one that is not a number.

    Example:
        >>> from fedlightning.algorithms import Assignment, Forecast, Plan
        >>> cohort = tuple(Assignment(name, first_step=0, steps=5) for name in ("alice", "bob"))
        >>> plan = WorkerDropout(trace=[["bob"], []]).outcome(Plan(0, cohort, seed=0), Forecast())
        >>> plan.workers, plan.absent
        (('alice',), {'bob': 'dropped out'})
    """

    rate: float | Mapping[str, float] | None = None
    trace: Trace | Callable[[int], Iterable[str]] | None = field(default=None, repr=False)
    _table: Table | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if (self.rate is None) == (self.trace is None):
            both = "neither is given" if self.rate is None else "both are given"
            raise TypeError(
                f"workers drop out by rate or by trace, and {both}. Use WorkerDropout(rate=0.1), or "
                "WorkerDropout(trace=[['bob'], []])."
            )
        rates = self.rate.values() if isinstance(self.rate, Mapping) else (self.rate,)
        for rate in rates if self.rate is not None else ():
            check_real("rate", rate, zero_allowed=True, remedy="Give the chance of a worker, such as 0.1.")
            if rate is not None and rate > 1:
                raise ValueError(f"rate={rate} is a chance, and must be at most 1. Give 0.1 for 10%.")
        if self.trace is not None and not callable(self.trace):
            # What a file says now, not when it is asked: it may change.
            object.__setattr__(self, "_table", table_of(self.trace))
            object.__setattr__(self, "trace", self._table)

    @property
    @override
    def named(self) -> Collection[str]:
        rates = self.rate if isinstance(self.rate, Mapping) else ()
        return frozenset(rates).union(*(self._table or ()))

    @override
    def outcome(self, plan: Plan, forecast: Forecast) -> Plan:
        return without(plan, self._gone_of(plan), "dropped out")

    def _gone_of(self, plan: Plan) -> frozenset[str]:
        if self._table is not None:
            return self._table[plan.round % len(self._table)]
        if callable(self.trace):
            return frozenset(self.trace(plan.round))
        return frozenset(name for name in plan.workers if self._chance_of(plan, name) < self._rate_of(name))

    def _chance_of(self, plan: Plan, worker: str) -> float:
        seed = derive_seed(plan.seed, "dropout of workers", plan.round, worker)
        return float(np.random.default_rng(seed).random())

    def _rate_of(self, worker: str) -> float:
        assert self.rate is not None
        return self.rate.get(worker, 0.0) if isinstance(self.rate, Mapping) else self.rate
