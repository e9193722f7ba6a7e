"""A round whose visits are all carried out at virtual workers of whom nothing is made for that.

What a worker is, costs more than what it computes where models are small. Here a cohort is names and numbers
in columns; who asks for one of its workers later finds it as if it had been visited by itself.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import compress

import numpy as np

from fedlightning.algorithms import Plan
from fedlightning.data.pool import RowPool
from fedlightning.local.known import looked_up_once
from fedlightning.local.metrics import MetricState, kept_states, values_of
from fedlightning.local.one_by_one.step_tapes import StepTapes
from fedlightning.local.one_by_one.training import OneByOne, why_not_one_by_one
from fedlightning.local.randomness import isolated_streams
from fedlightning.local.vectorised.chunks import Numbers
from fedlightning.local.vectorised.pooled import PooledErrands
from fedlightning.strategy.aggregation import Aggregation
from fedlightning.strategy.cohort import CohortReports, Terms
from fedlightning.strategy.elsewhere import VisitsElsewhere
from fedlightning.strategy.errors import not_finite
from fedlightning.strategy.history import MAX_NAMED_WORKERS
from fedlightning.strategy.in_turn import VisitsInTurn
from fedlightning.strategy.optimization import Optimization
from fedlightning.strategy.records import VisitRecord
from fedlightning.strategy.round_result import RoundResult
from fedlightning.strategy.rounds import Round, RoundTerms
from fedlightning.strategy.spread import Spread
from fedlightning.strategy.spread_cohort import SpreadCohort
from fedlightning.strategy.together import Together, joint_visits
from fedlightning.workers.joint import Account


class CohortRound(Round):
    """Carry out the visits of a round as one, where nobody looks at single ones.

    Args:
        terms: What with.
        optimization: The module's optimizers.
        together: Carries out visits together; ``None`` to make one after the other.
        spread: Makes visits in other processes; ``None`` to make them in this one.
        tapes: Those of steps of earlier rounds; ``None`` to take each step anew.
    """

    def __init__(
        self,
        terms: RoundTerms,
        optimization: Optimization,
        together: Together | None,
        spread: Spread | None = None,
        tapes: StepTapes | None = None,
    ) -> None:
        super().__init__(terms)
        self._optimization = optimization
        self._together = together
        self._spread = spread
        self._tapes = tapes

    @abstractmethod
    def _why_one_by_one(self) -> str:
        """Say what works with one visit at a time; nothing if nothing does."""

    def _with_nobody_made(self, plan: Plan) -> RoundResult | None:
        """Carry out the visits where no worker, nor anything at one, has to be made for that."""
        pool = self._federation.rows_of(plan.workers)
        several = len(set(plan.workers)) == len(plan.assignments) > 1
        looked_at = self._terms.audience.follows_visits or self._terms.stopwatch is not None
        if pool is None or not several or looked_at or self._why_one_by_one() or self._keeps_elsewhere():
            return None
        quiet = not self._terms.audience
        with looked_up_once(self._module), isolated_streams() if quiet else nullcontext():
            self._terms.clock.turn_to("send")
            errands = self._errands(plan, pool)
            result = None
            # A rule asks for every update, and processes that take steps together return means.
            if self._together is not None and (self._spread is None or self._rule is not None):
                result = self._visits_at_once(plan, errands, self._together)
            if result is None and self._spread is not None:
                return self._visits_elsewhere(plan, errands, self._spread)
            return self._visits_in_turn(plan, errands) if result is None else result

    def _keeps_elsewhere(self) -> bool:
        """Tell whether optimizer states are kept, and would have to go to other memory than this."""
        keeps = self._federation.keeps_states
        return keeps and (self._spread is not None or self._module.device.type != "cpu")

    def _visits_at_once(self, plan: Plan, errands: PooledErrands, together: Together) -> RoundResult | None:
        """Let the workers take their steps together; return ``None`` where they cannot."""
        clock, optimizers = self._terms.clock, self._optimization.optimizers
        aggregation = self._begin_aggregation(plan)
        reports = CohortReports(self._terms_of(plan, errands))
        clock.turn_to("work")
        for block, chunk in enumerate(together.carry_out_unmade(self._module, optimizers, errands)):
            clock.turn_to("aggregate")
            reports.take(chunk.numbers, chunk.reports)
            finite = zip(chunk.numbers.tolist(), reports.finite[chunk.numbers].tolist(), strict=True)
            weights = {
                row: reports.weights[number] for row, (number, is_told) in enumerate(finite) if is_told
            }
            aggregation.add_chunk(chunk, weights, block)
            clock.turn_to("work")
        if reports.done < len(errands):
            return None
        clock.turn_to("log")
        self._compute_metrics(reports)
        up, down = self._entered(reports, errands, np.arange(len(errands)))
        skipped = self._not_finite(reports, plan)
        return self._result(plan, reports, aggregation, skipped, reports.visits(up, down))

    def _visits_in_turn(self, plan: Plan, errands: PooledErrands) -> RoundResult | None:
        """Let one worker after the other take its steps; return ``None`` where that takes more."""
        optimizers = self._optimization.optimizers
        if why_not_one_by_one(self._module, optimizers, errands.visit):
            return None
        self._federation.states_of(plan.workers, plan.round)  # what visits together have left does not count
        reports = CohortReports(self._terms_of(plan, errands))
        training = OneByOne(self._module, optimizers[0], errands, self._tapes)
        visits = VisitsInTurn(
            plan=plan,
            module=self._module,
            optimization=self._optimization,
            training=training,
            aggregation=self._begin_aggregation(plan),
            weights=reports.weights,
            tolerance=self._tolerance,
            clock=self._terms.clock,
            on_raise=self._enter_failure(plan, errands),
        )
        with kept_states(self._module):
            try:
                visits.carry_out()
            finally:
                self._terms.clock.turn_to("log")
                reports.take(*training.take_reports())
                sizes = self._taken_in(plan, errands, reports, visits, training.take_metrics())
        self._compute_metrics(reports)
        return self._result(plan, reports, visits.aggregation, visits.skipped, reports.visits(*sizes))

    def _visits_elsewhere(self, plan: Plan, errands: PooledErrands, spread: Spread) -> RoundResult | None:
        """Let other processes carry out the visits; return ``None`` where that takes more."""
        optimizers, together = self._optimization.optimizers, self._together
        aggregation = self._begin_aggregation(plan)
        way = None
        if together is not None and self._rule is None:
            way = together.way_of(self._module, optimizers, errands)
        if way is None and why_not_one_by_one(self._module, optimizers, errands.visit):
            return None
        reports = CohortReports(self._terms_of(plan, errands))
        cohort = SpreadCohort(
            module=self._module,
            optimization=self._optimization,
            errands=errands,
            weights=reports.weights,
            way=way,
            takes_means=aggregation.takes_means,
            retries=self._tolerance.retries_of("error"),
            skips=self._tolerance.skipped_kinds,
            following=self._following(errands.pool),
        )
        visits = VisitsElsewhere(
            plan=plan,
            cohort=cohort,
            spread=spread,
            aggregation=aggregation,
            reports=reports,
            tolerance=self._tolerance,
            clock=self._terms.clock,
            on_raise=self._enter_failure(plan, errands),
        )
        with kept_states(self._module):
            try:
                visits.carry_out()
            finally:
                self._terms.clock.turn_to("log")
                if not visits.why_not:
                    sizes = self._taken_in(plan, errands, reports, visits, visits.metrics)
        self._compute_metrics(reports)
        if together is not None and visits.why_not:
            together.fail(visits.why_not)
            return self._visits_elsewhere(plan, errands, spread)
        if together is not None:
            together.refuse_to_compile(visits.why_not_compiled)
        skipped = {**visits.skipped, **({} if way is None else self._not_finite(reports, plan))}
        return self._result(plan, reports, aggregation, skipped, reports.visits(*sizes))

    def _following(self, pool: RowPool) -> Callable[[], PooledErrands] | None:
        """Return what tells of the visits of the next round, if somebody can know of them."""
        foresight = self._terms.foresight
        return None if foresight is None else lambda: self._errands(foresight(), pool)

    def _enter_failure(self, plan: Plan, errands: PooledErrands) -> Callable[[str], None]:
        """Return what enters in a worker's ledger that its visit has raised."""
        joint = joint_visits(self._module, self._optimization.optimizers, errands.visit)
        return lambda worker: self._federation.enter(Account(joint, None, plan.round), (worker,))

    def _taken_in(
        self,
        plan: Plan,
        errands: PooledErrands,
        reports: CohortReports,
        visits: VisitsInTurn | VisitsElsewhere,
        metrics: Mapping[int, tuple[MetricState, ...]],
    ) -> tuple[Numbers, Numbers]:
        """Enter in ledgers what has come of visits, and return the bytes up and down of each."""
        reports.metrics.update(metrics)
        reports.leave_out(plan.workers.index(worker) for worker in visits.skipped)
        return self._entered(reports, errands, np.array(visits.ended, dtype=np.int64))

    def _compute_metrics(self, reports: CohortReports) -> None:
        """Compute what each worker's torchmetrics come to, where workers are recorded by name."""
        if not reports.metrics or not _are_named(reports.workers):
            return
        with kept_states(self._module):
            for number, states in reports.metrics.items():
                reports.take_values(number, values_of(self._module, states))

    def _result(
        self,
        plan: Plan,
        reports: CohortReports,
        aggregation: Aggregation,
        skipped: Mapping[str, str],
        records: Sequence[VisitRecord],
    ) -> RoundResult:
        """Return what the visits amount to."""
        left = len(plan.assignments) - len(skipped)
        self._require_enough(plan, left, skipped)
        self._terms.clock.turn_to("aggregate")
        mean = aggregation.result()
        average, server_state = self._finished(mean, left)
        self._terms.clock.turn_to("log")
        return RoundResult(
            average=average,
            buffers=[*self._module.buffers()] if mean is None else mean.buffers,
            server_state=server_state,
            loss=reports.loss,
            logs=reports.logs,
            metrics=reports.groups_of_metrics,
            visits=records,
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
            states_kept=self._federation.states_of(workers, plan.round),
            metrics_of_each=_are_named(workers),
        )

    def _terms_of(self, plan: Plan, errands: PooledErrands) -> Terms:
        weigh = self._terms.algorithm.weight
        given = [assignment.weight for assignment in plan.assignments]
        weights = [
            weigh(samples) if weight is None else weight
            for weight, samples in zip(given, errands.samples.tolist(), strict=True)
        ]
        return Terms(plan.round, tuple(errands.workers), errands.samples, np.array(weights, dtype=np.float64))

    def _entered(
        self, reports: CohortReports, errands: PooledErrands, ended: Numbers
    ) -> tuple[Numbers, Numbers]:
        """Enter in ledgers what has crossed the doors of some workers, and return the bytes up and down."""
        joint = joint_visits(self._module, self._optimization.optimizers, errands.visit)
        workers, sizes = reports.workers, reports.result_bytes
        up, down = np.zeros_like(sizes), np.zeros_like(sizes)
        for size in np.unique(sizes[ended]).tolist():
            alike = ended[sizes[ended] == size]
            account = Account(joint, size, errands.visit.round)
            every = len(alike) == len(workers)
            self._federation.enter(account, workers if every else tuple(workers[n] for n in alike.tolist()))
            up[alike], down[alike] = account.sent, account.received
        return up, down

    def _not_finite(self, reports: CohortReports, plan: Plan) -> dict[str, str]:
        """Say whose update is not in the average, and why; raise where that is not tolerated."""
        skipped = {}
        for worker in compress(reports.workers, ~reports.finite):
            failure = not_finite(worker, plan.round)
            if not self._tolerance.skips(failure.kind):
                raise failure
            skipped[failure.worker] = failure.reason
        return skipped


def _are_named(workers: Sequence[str]) -> bool:
    """Tell whether so few workers take part that each is recorded by name."""
    return len(workers) <= MAX_NAMED_WORKERS
