"""Record the visits of one round as they happen, and tell who listens. Carrying them out is for `rounds`."""

from __future__ import annotations

import lightning.pytorch as pl

from fedlightning.algorithms import Assignment, Plan
from fedlightning.local.metrics import value_of
from fedlightning.local.visit import VisitReport
from fedlightning.strategy.events import Audience
from fedlightning.strategy.federation import Member
from fedlightning.strategy.history import MAX_NAMED_WORKERS
from fedlightning.strategy.records import VisitRecord, VisitStart
from fedlightning.strategy.stopwatch import Stopwatch
from fedlightning.strategy.traffic import Traffic


class VisitBook:
    """Keep one record per visit, in the order of the visits.

    Torchmetrics are computed for each visit of a cohort that the history keeps, and of any cohort that
    somebody listens to; it takes some 0.1 ms per metric and visit.

    Args:
        module: The global module, whose torchmetrics compute a visit's values out of the reported states.
        audience: Who is told of each visit.
        plan: The round.
        stopwatch: Tells how long visits take by the simulated clock; ``None`` where there is none.
    """

    def __init__(
        self,
        module: pl.LightningModule,
        audience: Audience,
        plan: Plan,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self._module = module
        self._audience = audience
        self._round = plan.round
        self._stopwatch = stopwatch
        self._wanted = bool(audience) or len(plan.assignments) <= MAX_NAMED_WORKERS
        self._before = Traffic()
        self._staleness: int | None = None
        self.records: list[VisitRecord] = []

    def begin(self, member: Member, assignment: Assignment) -> None:
        """Announce a visit."""
        self._before = Traffic.of(member)
        self._staleness = None if assignment.version is None else self._round - assignment.version
        if self._audience:
            start = VisitStart(
                self._round, assignment.worker, member.samples, assignment.first_step, assignment.steps
            )
            self._audience.tell("on_worker_start", start)

    def end(self, member: Member, report: VisitReport) -> None:
        """Record the visit that was announced last, and announce its end.

        Args:
            member: The worker that was visited.
            report: What it has reported.
        """
        worker, watch = member.worker.id, self._stopwatch
        traffic = Traffic.of(member) - self._before
        record = VisitRecord(
            round=self._round,
            worker=worker,
            samples=member.samples,
            steps=report.steps,
            loss=None if report.loss is None else float(report.loss),
            metrics=self._metrics_of(report),
            bytes_up=traffic.up,
            bytes_down=traffic.down,
            simulated_seconds=None if watch is None else watch.seconds(worker, report.steps, traffic),
            staleness=self._staleness,
        )
        self.records.append(record)
        if self._audience:
            self._audience.tell("on_worker_end", record)

    def _metrics_of(self, report: VisitReport) -> dict[str, float]:
        values = {logged.name: float(logged.value) for logged in report.logs if logged.value is not None}
        if not self._wanted:
            return values
        # The round's own states are put back when its visits are over.
        computed = {state.path: value_of(self._module, state) for state in report.metrics}
        for logged in report.logs:
            value = computed.get(logged.metric or "")
            if value is not None:
                values[logged.name] = float(value)
        return values
