"""Carry out the plan of one round: the module goes to each worker, works there, and comes back.

What all rounds have in common; the two kinds are in ``gradient_round`` and ``local_round``. What the strategy
does with the result, and when Lightning calls it, is in ``federated``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import ClassVar

import lightning.pytorch as pl
import torch
from torch import Tensor

from fedlightning.algorithms import (
    AggregationRule,
    Algorithm,
    Assignment,
    Plan,
    ServerState,
    Update,
    UpdateKind,
)
from fedlightning.algorithms.attacks import BadWorkers, Collusion
from fedlightning.algorithms.blocks import block_of
from fedlightning.algorithms.postprocessing import Downlink, Postprocessing
from fedlightning.local.known import looked_up_once
from fedlightning.local.logs import combine_logs
from fedlightning.local.metrics import kept_states, put_states, take_states
from fedlightning.local.randomness import isolated_streams
from fedlightning.local.visit import Visit, VisitReport
from fedlightning.strategy.aggregation import Aggregation, AtController, AtTrustedWorker
from fedlightning.strategy.errors import CohortTooSmall, RoundFailed, failures_named, not_finite, reshaped
from fedlightning.strategy.events import Audience
from fedlightning.strategy.federation import Federation, Member
from fedlightning.strategy.phases import PhaseClock
from fedlightning.strategy.records import VisitRecord
from fedlightning.strategy.root import Root
from fedlightning.strategy.round_result import RoundResult
from fedlightning.strategy.settings import Aggregator
from fedlightning.strategy.snapshot import ModuleSnapshot
from fedlightning.strategy.stopwatch import Stopwatch
from fedlightning.strategy.tolerance import Tolerance
from fedlightning.strategy.visits import VisitBook
from fedlightning.workers import Worker, in_round
from fedlightning.workers.random import derive_seed


@dataclass(frozen=True)
class RoundTerms:
    """What rounds of both kinds are carried out with.

    Args:
        federation: The workers.
        module: The global module. It is always back, with the parameters that it had, when a round ends.
        passes_batch_idx: Whether ``training_step`` takes a ``batch_idx``.
        accumulate: Batches whose gradients are accumulated into one step of an optimizer.
        audience: Who is told of each visit.
        tolerance: Which failures the round survives.
        aggregation: How updates are combined; ``None`` for their weighted mean.
        root: The server's own data, for a rule that needs it.
        aggregator: Who is trusted to combine the updates; ``None`` for the controller.
        postprocess: What is done to updates before they leave; ``None`` for nothing.
        downlink: What workers are sent in place of the module's parameters; ``None`` for these themselves.
        bad_workers: Who does something else, in a simulation of attacks.
        algorithm: What is done at the workers, and with what they send.
        server_state: What the server keeps for the algorithm.
        first_buffers: The module's buffers at the start of the fit.
        clock: Is told what the round's time goes to.
        stopwatch: Tells how long visits take by the simulated clock; ``None`` where there is none.
        checks_cohort: Whether too few updates stop the run; not those of a sequential round, or of a replay.
        foresight: Returns the plan of the round after this one; ``None`` where it is not known yet.
    """

    federation: Federation
    module: pl.LightningModule
    passes_batch_idx: bool
    accumulate: int
    audience: Audience
    tolerance: Tolerance
    aggregation: AggregationRule | None
    root: Root | None
    aggregator: Aggregator | None
    postprocess: Postprocessing | None
    downlink: Downlink | None
    bad_workers: BadWorkers | None
    algorithm: Algorithm
    server_state: ServerState
    first_buffers: Sequence[Tensor]
    clock: PhaseClock
    stopwatch: Stopwatch | None
    checks_cohort: bool
    foresight: Callable[[], Plan] | None


class Progress:
    """How far a round has come.

    Args:
        plan: What it is to do.
        aggregation: Where its updates are combined.
        visits: Where its visits are recorded.

    Attributes:
        skipped: Why a worker's update is not in the aggregate, by worker.
    """

    def __init__(self, plan: Plan, aggregation: Aggregation, visits: VisitBook) -> None:
        self.plan = plan
        self.aggregation = aggregation
        self.visits = visits
        self.skipped: dict[str, str] = {}
        self._places = {assignment.worker: place for place, assignment in enumerate(plan.assignments)}
        self._reports: list[tuple[int, VisitReport, float]] = []

    def end(self, member: Member, report: VisitReport, weight: float) -> None:
        """Record a visit whose update is in the aggregate."""
        self.visits.end(member, report)
        self._reports.append((self._places[member.worker.id], report, weight))

    def next_worker(self) -> str:
        """Return the worker whose visit is not taken in yet, the first of them; the last, where all are."""
        done = len(self.visits.records) + len(self.skipped)
        return self.plan.workers[min(done, len(self.plan.workers) - 1)]

    def block_of(self, worker: str) -> int:
        """Return the number of the block of the cohort that a worker is in."""
        return block_of(self._places[worker], len(self._places))

    @property
    def reports(self) -> list[tuple[VisitReport, float]]:
        """Reports and weights in the order of the plan, whoever was done first."""
        return [(report, weight) for _, report, weight in sorted(self._reports, key=itemgetter(0))]

    @property
    def records(self) -> list[VisitRecord]:
        """Records of the visits in the order of the plan."""
        return sorted(self.visits.records, key=lambda record: self._places[record.worker])


class Round(ABC):
    """Carry out plans with one module.

    Args:
        terms: What with.
    """

    def __init__(self, terms: RoundTerms) -> None:
        self._terms = terms
        self._federation = terms.federation
        self._module = terms.module
        self._tolerance = terms.tolerance
        self._rule = terms.aggregation

    update: ClassVar[UpdateKind]
    """What of the module is averaged."""

    @property
    def keeps_gradients(self) -> bool:
        """Whether a lone worker's module, which steps by hand, keeps its gradients from round to round."""
        by_hand = not self._module.automatic_optimization
        return by_hand and self._federation.alone and self._terms.aggregator is None

    @abstractmethod
    def _work(self, member: Member, visit: Visit, aggregation: Aggregation) -> VisitReport:
        """Send what the visit needs, run it at the worker, and let its update be fetched."""

    def _snapshot(self) -> ModuleSnapshot:
        """Keep aside what a visit changes."""
        return ModuleSnapshot(self._module)

    @abstractmethod
    def _like(self, terms: RoundTerms) -> Round:
        """Return a round in which others do the same work."""

    def update_of(self, plan: Plan) -> Update | None:
        """Carry out ``plan``, and return what its visits amount to; the module is as before."""
        return self._combined(plan)[1]

    def _update_at_root(self, plan: Plan) -> Update | None:
        """Do what the workers of the round are to do with the server's own data, if there is any."""
        terms, root = self._terms, self._terms.root
        if root is None:
            return None
        plainly = replace(terms, aggregation=None, aggregator=None, postprocess=None, bad_workers=None)
        plainly = replace(plainly, downlink=None, stopwatch=None)
        unheard = replace(plainly, audience=Audience(), tolerance=Tolerance(), checks_cohort=False)
        at_root = self._like(replace(unheard, federation=root.federation, root=None))
        with kept_states(self._module):
            return at_root.update_of(root.plan(plan))

    def _begin_aggregation(self, plan: Plan) -> Aggregation:
        chain = self._terms.postprocess if self.update == "parameters" else None
        attack = self._terms.bad_workers.attack if self._terms.bad_workers is not None else None
        collusion = attack if isinstance(attack, Collusion) else None
        # All but the plain mean see how far each worker has gone.
        needed = any(part is not None for part in (self._rule, chain, collusion))
        start = self._starting_point() if needed else ()
        how = (self._rule, start, chain, self._trained, collusion, self._update_at_root(plan))
        aggregator = self._aggregator_of(plan)
        return AtController(*how) if aggregator is None else AtTrustedWorker(aggregator, *how)

    def _aggregator_of(self, plan: Plan) -> Worker | None:
        """Return who combines; of a cohort in turn, by the number of the round (swarm learning)."""
        aggregator = self._terms.aggregator
        if aggregator != "rotating":
            return aggregator
        if not plan.workers:
            return None  # there is nothing to combine
        return self._federation.members[plan.workers[plan.round % len(plan.workers)]].worker

    @property
    def _trained(self) -> list[int]:
        """Positions of the parameters that are no frozen ones."""
        return [n for n, parameter in enumerate(self._module.parameters()) if parameter.requires_grad]

    def _require_enough(self, plan: Plan, sent: int, skipped: Mapping[str, str]) -> None:
        """Stop at a round with fewer updates than are tolerated, or than a rule can combine."""
        if self._federation.alone or not self._terms.checks_cohort:
            return
        least = self._tolerance.min_cohort
        if self._rule is not None:
            least = max(least, self._rule.least_workers)
        if not plan.assignments and self._tolerance.min_cohort <= 1:
            return  # nobody was drawn or got through, and nobody failed
        if sent < least:
            raise CohortTooSmall(plan.round, sent, least, {**plan.absent, **skipped})

    def _starting_point(self) -> Sequence[Tensor]:
        """Return what an update would be that changes nothing."""
        return [parameter.detach() for parameter in self._module.parameters()]

    @abstractmethod
    def _finished(self, mean: Update | None, cohort: int) -> tuple[Sequence[Tensor | None], ServerState]:
        """Return what stands for a cohort, given its mean, and what the server keeps from here."""

    def run(self, plan: Plan) -> RoundResult:
        """Carry out ``plan``; the module's own tensors are as before when this returns or raises.

        Raises:
            RoundFailed: A visit failed, and the run does not tolerate it.
            CohortTooSmall: Too many visits failed.
        """
        # Listeners draw from the process's own random numbers, between one visit and the next.
        quiet = not self._federation.alone and not self._terms.audience
        with looked_up_once(self._module), isolated_streams() if quiet else nullcontext():
            return self._visits(plan)

    def _visits(self, plan: Plan) -> RoundResult:
        several = len(plan.assignments) > 1
        progress, mean = self._combined(plan)
        reports = progress.reports
        average, server_state = self._finished(mean, len(reports))
        self._terms.clock.turn_to("log")
        return RoundResult(
            average=average,
            buffers=[*self._module.buffers()] if mean is None else mean.buffers,
            server_state=server_state,
            loss=_mean_loss(reports),
            logs=combine_logs(report.logs for report, _ in reports),
            metrics=tuple(report.metrics for report, _ in reports) if several else (),
            visits=tuple(progress.records),
            skipped=progress.skipped,
            samples=sum(report.samples for report, _ in reports),
            wastes_gradients=any(report.wastes_gradients for report, _ in reports),
        )

    def _combined(self, plan: Plan) -> tuple[Progress, Update | None]:
        """Carry out the visits, and combine their updates."""
        clock = self._terms.clock
        clock.turn_to("send")
        start = self._snapshot()
        metrics = take_states(self._module)

        def undo() -> None:
            start.restore()
            put_states(self._module, metrics)

        try:
            aggregation = self._begin_aggregation(plan)
            book = VisitBook(self._module, self._terms.audience, plan, self._terms.stopwatch)
            progress = Progress(plan, aggregation, book)
            for assignment in self._not_done_elsewhere(progress):
                try:
                    clock.turn_to("send")
                    member, report = self._attempt(assignment, progress, undo)
                except RoundFailed as failure:
                    self._skip(failure, progress)
                    undo()
                    continue
                clock.turn_to("aggregate")
                if buffer := start.reshaped_buffer():
                    raise reshaped(buffer, assignment.worker, plan.round)
                weight = self._weight_of(assignment, member)
                aggregation.add(self._module, self.update, weight, progress.block_of(assignment.worker))
                start.restore()
                clock.turn_to("log")
                progress.end(member, report, weight)
            self._require_enough(plan, len(progress.reports), progress.skipped)
        except BaseException:
            undo()
            raise
        clock.turn_to("aggregate")
        if len(plan.assignments) > 1:
            put_states(self._module, metrics)
        return progress, aggregation.result()

    def _weight_of(self, assignment: Assignment, member: Member) -> float:
        weight = assignment.weight
        return self._terms.algorithm.weight(member.samples) if weight is None else weight

    def _not_done_elsewhere(self, progress: Progress) -> Sequence[Assignment]:
        """Carry out what visits can be carried out together, or in other processes; return the others."""
        return progress.plan.assignments

    def _skip(self, failure: RoundFailed, progress: Progress) -> None:
        """Go on without a worker, or raise."""
        if not self._tolerance.skips(failure.kind):
            raise failure
        progress.skipped[failure.worker] = failure.reason

    def _attempt(
        self, assignment: Assignment, progress: Progress, undo: Callable[[], None], failures: int = 0
    ) -> tuple[Member, VisitReport]:
        """Visit a worker, and again as often as the failure at hand may be retried."""
        try:
            with failures_named(assignment.worker, progress.plan.round):
                member = self._federation.members[assignment.worker]
                progress.visits.begin(member, assignment)
                return member, self._visit(member, assignment, progress)
        except RoundFailed as failure:
            if failures == self._tolerance.retries_of(failure.kind):
                raise
        undo()
        return self._attempt(assignment, progress, undo, failures + 1)

    def _visit(self, member: Member, assignment: Assignment, progress: Progress) -> VisitReport:
        with in_round(progress.plan.round):
            report = self._work(member, self._visit_of(assignment, progress.plan), progress.aggregation)
        self._check(report, assignment.worker, progress.plan.round)
        return report

    def _check(self, report: VisitReport, worker: str, round: int) -> None:
        if report.failed:
            raise not_finite(worker, round)

    def _visit_of(self, assignment: Assignment, plan: Plan) -> Visit:
        worker = assignment.worker
        return Visit(
            round=plan.round,
            first_step=assignment.first_step,
            steps=assignment.steps,
            seed=None if self._federation.alone else derive_seed(plan.seed, "local", plan.round, worker),
            accumulate=self._terms.accumulate,
            passes_batch_idx=self._terms.passes_batch_idx,
            separates_metrics=len(plan.assignments) > 1,
            requires_finite=self._tolerance.on_nonfinite != "keep",
            keeps_gradients=self.keeps_gradients,
            keeps_buffers=self._terms.algorithm.buffers == "keep",
        )


def _mean_loss(reports: Sequence[tuple[VisitReport, float]]) -> Tensor | None:
    losses = [(report.loss, weight) for report, weight in reports if report.loss is not None]
    if not losses:
        return None
    if len(losses) == 1:
        return losses[0][0]
    weights = torch.tensor([weight for _, weight in losses], dtype=torch.float64)
    stacked = torch.stack([loss for loss, _ in losses])
    return (stacked * (weights / weights.sum()).to(stacked)).sum()
