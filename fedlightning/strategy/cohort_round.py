"""A round whose visits are all carried out together, at virtual workers of whom nothing is made for that.

What a worker is, costs more than what it computes where models are small. Here a cohort is names and numbers
in columns; who asks for one of its workers later finds it as if it had been visited by itself.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import nullcontext
from itertools import compress

import numpy as np
import numpy.typing as npt

from fedlightning.algorithms import Plan
from fedlightning.data.pool import RowPool
from fedlightning.local.known import looked_up_once
from fedlightning.local.randomness import isolated_streams
from fedlightning.local.vectorised.pooled import PooledErrands
from fedlightning.strategy.cohort import CohortReports, Terms
from fedlightning.strategy.optimization import Optimization
from fedlightning.strategy.round_result import RoundResult
from fedlightning.strategy.rounds import Round, RoundTerms, not_finite
from fedlightning.strategy.together import Together, joint_visits
from fedlightning.workers.joint import Account, JointProgram


class CohortRound(Round):
    """Carry out the visits of a round as one, where nobody looks at single ones.

    Args:
        terms: What with.
        optimization: The module's optimizers.
        together: Carries out visits together; ``None`` to make one after the other.
    """

    def __init__(self, terms: RoundTerms, optimization: Optimization, together: Together | None) -> None:
        super().__init__(terms)
        self._optimization = optimization
        self._together = together

    @abstractmethod
    def _why_one_by_one(self) -> str:
        """Say what works with one visit at a time; nothing if nothing does."""

    def _with_nobody_made(self, plan: Plan) -> RoundResult | None:
        """Carry out the visits together where no worker, nor anything at one, has to be made for that."""
        pool = self._federation.row_pool
        several = len(set(plan.workers)) == len(plan.assignments) > 1
        looked_at = self._terms.audience.follows_visits or self._terms.stopwatch is not None
        if self._together is None or pool is None or not several or looked_at or self._why_one_by_one():
            return None
        quiet = not self._terms.audience
        with looked_up_once(self._module), isolated_streams() if quiet else nullcontext():
            return self._visits_at_once(plan, pool, self._together)

    def _visits_at_once(self, plan: Plan, pool: RowPool, together: Together) -> RoundResult | None:
        clock, optimizers = self._terms.clock, self._optimization.optimizers
        clock.turn_to("send")
        aggregation = self._begin_aggregation(plan)
        errands = self._errands(plan, pool)
        reports = CohortReports(self._terms_of(plan, errands))
        joint = joint_visits(self._module, optimizers, errands.visit)
        clock.turn_to("work")
        for chunk in together.carry_out_unmade(self._module, optimizers, errands):
            clock.turn_to("aggregate")
            reports.take(chunk.numbers, chunk.reports)
            finite = zip(range(len(chunk.numbers)), chunk.numbers.tolist(), strict=True)
            weights = {row: reports.weights[number] for row, number in finite if reports.finite[number]}
            aggregation.add_chunk(chunk, weights)
            clock.turn_to("work")
        if reports.done < len(errands):
            return None
        clock.turn_to("log")
        up, down = self._entered(reports, joint, plan)
        skipped = self._skipped(reports, plan)
        left = len(errands) - len(skipped)
        self._require_enough(plan, left, skipped)
        clock.turn_to("aggregate")
        mean = aggregation.result()
        average, server_state = self._finished(mean, left)
        clock.turn_to("log")
        return RoundResult(
            average=average,
            buffers=[*self._module.buffers()] if mean is None else mean.buffers,
            server_state=server_state,
            loss=reports.loss,
            logs=reports.logs,
            metrics=(),
            visits=reports.visits(up, down),
            skipped=skipped,
            samples=reports.samples,
        )

    def _errands(self, plan: Plan, pool: RowPool) -> PooledErrands:
        assignments, batches = plan.assignments, self._federation.batches
        workers = plan.workers
        return PooledErrands(
            pool,
            plan.seed,
            self._visit_of(assignments[0], plan),
            workers,
            first=np.array([assignment.first_step for assignment in assignments]),
            steps=np.array([assignment.steps for assignment in assignments]),
            samples=pool.samples(workers),
            every=np.array([batches[worker] for worker in workers]),
        )

    def _terms_of(self, plan: Plan, errands: PooledErrands) -> Terms:
        weigh = self._terms.algorithm.weight
        given = [assignment.weight for assignment in plan.assignments]
        weights = [
            weigh(samples) if weight is None else weight
            for weight, samples in zip(given, errands.samples.tolist(), strict=True)
        ]
        return Terms(plan.round, tuple(errands.workers), errands.samples, np.array(weights))

    def _entered(
        self, reports: CohortReports, joint: JointProgram, plan: Plan
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Enter in ledgers what has crossed the workers' doors, and return the bytes up and down of each."""
        workers, sizes = reports.workers, reports.result_bytes
        up, down = np.zeros_like(sizes), np.zeros_like(sizes)
        for size in np.unique(sizes).tolist():
            alike = sizes == size
            account = Account(joint, size, plan.round)
            every = bool(alike.all())
            self._federation.enter(account, workers if every else tuple(compress(workers, alike)))
            up[alike], down[alike] = account.sent, account.received
        return up, down

    def _skipped(self, reports: CohortReports, plan: Plan) -> dict[str, str]:
        """Say whose update is not in the average, and why; raise where that is not tolerated."""
        skipped = {}
        for worker in compress(reports.workers, ~reports.finite):
            failure = not_finite(worker, plan.round)
            if not self._tolerance.skips(failure.kind):
                raise failure
            skipped[failure.worker] = failure.reason
        return skipped
