"""The visits of a cohort in other processes, at workers of whom nothing is made: failures and updates.

What a process does is in ``processes``, and which visits it is given, in ``spread_cohort``; ``in_turn`` does
the same in this process.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from fedlightning.algorithms import Plan
from fedlightning.local.metrics import MetricState
from fedlightning.strategy.aggregation import Aggregation
from fedlightning.strategy.cohort import CohortReports
from fedlightning.strategy.errors import interrupts_named, named_failure, not_finite
from fedlightning.strategy.phases import PhaseClock
from fedlightning.strategy.processes.messages import Failure
from fedlightning.strategy.spread import Spread, error_of
from fedlightning.strategy.spread_cohort import DonePortion, SpreadCohort, carry_out
from fedlightning.strategy.tolerance import Tolerance


@dataclass
class VisitsElsewhere:
    """Have the visits of a round carried out, and take their updates into the mean.

    Args:
        plan: The round.
        cohort: Its visits.
        spread: The processes.
        aggregation: Where updates are combined.
        reports: Where reports are collected.
        tolerance: Which failures the round survives.
        clock: Is told what time goes to.
        on_raise: Is told the name of a worker whose visit has raised.

    Attributes:
        skipped: Why a worker's update is not in the mean, by worker.
        ended: Positions of the visits that have come to an end, if not to a finite one.
        metrics: States of the torchmetrics that visits have updated, by position.
        why_not: Why the visits could not be carried out together: none of them counts, then.
        why_not_compiled: Why their steps were not compiled.
    """

    plan: Plan
    cohort: SpreadCohort
    spread: Spread
    aggregation: Aggregation
    reports: CohortReports
    tolerance: Tolerance
    clock: PhaseClock
    on_raise: Callable[[str], None]
    skipped: dict[str, str] = field(default_factory=dict, init=False)
    ended: list[int] = field(default_factory=list, init=False)
    metrics: dict[int, tuple[MetricState, ...]] = field(default_factory=dict, init=False)
    why_not: str = field(default="", init=False)
    why_not_compiled: str = field(default="", init=False)

    def carry_out(self) -> None:
        """Carry out all visits.

        Raises:
            RoundFailed: A visit failed, and the run does not tolerate it, or a process has ended.
            RoundInterrupted: Somebody pressed Ctrl-C.
            NotFederatable: Something cannot be sent to another process, or come back from there.
        """
        self.clock.turn_to("work")
        with (
            interrupts_named(self._next_worker, self.plan.round),
            closing(carry_out(self.spread, self.cohort)) as portions,
        ):
            for portion in portions:
                self.why_not = portion.done.why_not
                if self.why_not:
                    return
                self._take_in(portion)
                self.clock.turn_to("work")

    def _next_worker(self) -> str:
        workers = self.plan.workers
        return workers[min(len(self.ended) + len(self.skipped), len(workers) - 1)]

    def _take_in(self, portion: DonePortion) -> None:
        """Record visits, and take their updates into the mean."""
        self.clock.turn_to("log")
        done, numbers = portion.done, portion.numbers
        self.why_not_compiled = done.why_not_compiled
        for positions, reports in done.reports:
            self.reports.take(positions, reports)
        self.metrics.update(done.metrics)
        for number in numbers:
            if number in done.failures:
                self._fail(number, done.failures[number])
            else:
                self.ended.append(number)
        self.clock.turn_to("aggregate")
        for piece in portion.updates:
            self.aggregation.add_update(piece.update, piece.weight, piece.block, whole=piece.whole)

    def _fail(self, number: int, failure: Failure | None) -> None:
        """Go on without a worker, or raise."""
        worker, round = self.plan.workers[number], self.plan.round
        if failure is None:
            self.ended.append(number)
            failed = not_finite(worker, round)
        else:
            self.on_raise(worker)
            failed = named_failure(worker, round, error_of(failure))
        if not self.tolerance.skips(failed.kind):
            raise failed
        self.skipped[worker] = failed.reason
