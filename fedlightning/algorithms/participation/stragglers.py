"""Stragglers: workers that do not get through their work in time.

Li et al. 2020, "Federated Optimization in Heterogeneous Networks", section 5.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from fedlightning.algorithms.participation.base import Forecast, Participation, without
from fedlightning.algorithms.plan import Assignment, Plan
from fedlightning.data.checks import check_real
from fedlightning.workers.random import derive_seed


@dataclass(frozen=True)
class Stragglers(Participation):
    """Let a share of each cohort do a part of its work only, in the setting of the FedProx paper.

    In each round, that share of the cohort (rounded to whole workers) are stragglers. Each gets through a
    uniformly random number of epochs between 1 and ``local_epochs``; where a visit has one epoch, or is
    counted in steps, of steps. FedProx takes their partial work in; FedAvg, as the paper has it, drops them:
    ``drop=True``. Who is slow and how far they come depends on seed, round and worker alone, so that both see
    the same stragglers.

    Args:
        share: The share of a cohort, from 0 to 1. At 0 everybody does everything.
        drop: Whether the work of stragglers is dropped, rather than taken in as far as it goes. It is then
            not done at all.

    Raises:
        ValueError: The share is out of range.

    Example:
        >>> from fedlightning.algorithms import Assignment, Forecast, Plan
        >>> cohort = tuple(Assignment(name, first_step=0, steps=20) for name in ("alice", "bob", "carol"))
        >>> slow = Stragglers(share=0.7).outcome(Plan(0, cohort, seed=5), Forecast())
        >>> [(one.worker, one.steps) for one in slow.assignments]
        [('alice', 20), ('bob', 7), ('carol', 11)]
        >>> Stragglers(share=0.7, drop=True).outcome(Plan(0, cohort, seed=5), Forecast()).workers
        ('alice',)
    """

    share: float
    drop: bool = False

    def __post_init__(self) -> None:
        check_real("share", self.share, zero_allowed=True, remedy="Give a share such as 0.5, or 0 for none.")
        if self.share > 1:
            raise ValueError(f"share={self.share} must be at most 1. Give 0.9 for 90% of a cohort.")
        if not isinstance(self.drop, bool):
            raise TypeError(f"drop must be True or False, got {self.drop!r}.")

    @override
    def outcome(self, plan: Plan, forecast: Forecast) -> Plan:
        slow = self._stragglers_of(plan)
        if self.drop:
            return without(plan, slow, "a straggler, whose work is dropped")
        done = (self._part_of(one, plan, forecast) if one.worker in slow else one for one in plan.assignments)
        return plan.but(tuple(done), plan.absent)

    def _stragglers_of(self, plan: Plan) -> frozenset[str]:
        """Return whom the lot makes stragglers: as many as the share asks for, as in the paper."""
        cohort = len(plan.workers)
        in_time = round((1 - self.share) * cohort)
        by_lot = sorted(plan.workers, key=lambda name: derive_seed(plan.seed, "straggler", plan.round, name))
        return frozenset(by_lot[: cohort - in_time])

    def _part_of(self, whole: Assignment, plan: Plan, forecast: Forecast) -> Assignment:
        piece = forecast.pieces.get(whole.worker, 1)
        seed = derive_seed(plan.seed, "partial work", plan.round, whole.worker)
        done = np.random.default_rng(seed).integers(1, whole.steps // piece, endpoint=True)
        return whole._replace(steps=int(done) * piece)
