"""Carry out the plan of one round: the module goes to each worker, works there, and comes back.

Two kinds of round: gradients come back (``GradientRound``), or trained parameters do (``LocalRound``).
What the strategy does with their average, and when Lightning calls it, is in ``federated``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from typing import ClassVar, TypeGuard

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms import (
    AggregationRule,
    Algorithm,
    Assignment,
    Collected,
    Extras,
    Plan,
    ServerState,
    Update,
    UpdateKind,
)
from fedlightning.algorithms.attacks import BadWorkers, Collusion, attacked
from fedlightning.algorithms.postprocessing import Postprocessing, ProcessedTraining
from fedlightning.local.gradient import compute_gradients
from fedlightning.local.known import looked_up_once
from fedlightning.local.logs import LoggedValue, combine_logs
from fedlightning.local.metrics import MetricState, put_states, take_states
from fedlightning.local.procedure import LocalProcedure
from fedlightning.local.randomness import isolated_streams
from fedlightning.local.training import train_locally
from fedlightning.local.visit import Visit, VisitReport
from fedlightning.strategy.aggregation import Aggregation, AtController, AtTrustedWorker, afterwards
from fedlightning.strategy.errors import CohortTooSmall, RoundFailed, failures_named
from fedlightning.strategy.events import Audience
from fedlightning.strategy.federation import Federation, Member
from fedlightning.strategy.optimization import Optimization
from fedlightning.strategy.phases import PhaseClock
from fedlightning.strategy.records import VisitRecord
from fedlightning.strategy.snapshot import ModuleSnapshot
from fedlightning.strategy.together import DoneTogether, JointVisit, Together
from fedlightning.strategy.tolerance import Tolerance
from fedlightning.strategy.visits import VisitBook, with_traffic_of
from fedlightning.workers import VirtualWorker, Worker, in_round
from fedlightning.workers.random import derive_seed


@dataclass(frozen=True)
class RoundResult:
    """What a round's visits amount to, before anything is taken over into the global module.

    Args:
        average: Weighted mean of what came back, one tensor per parameter: gradients or parameters. Frozen
            parameters are themselves in either case.
        buffers: Weighted mean of the buffers.
        loss: Mean training loss, weighted like the average; ``None`` where every step was skipped.
        logs: What ``self.log`` was given, combined over steps and workers.
        metrics: States of torchmetrics, one group per worker; empty where they travelled in the module.
        visits: What is known of each visit, in order.
        skipped: Why a worker's update is not in the average, by worker.
        samples: Samples in the batches of all visits, counted as often as they came, as far as batches tell.
        wastes_gradients: Whether a visit ended with gradients that a module that steps by hand had not used.
        server_state: What the server keeps for its algorithm from here.
    """

    average: Sequence[Tensor | None]
    buffers: Sequence[Tensor]
    loss: Tensor | None
    logs: tuple[LoggedValue, ...]
    metrics: tuple[tuple[MetricState, ...], ...]
    visits: tuple[VisitRecord, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    samples: int = 0
    wastes_gradients: bool = False
    server_state: ServerState = field(default_factory=dict)


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
        aggregator: A worker that is trusted to combine the updates; ``None`` for the controller.
        postprocess: What is done to updates before they leave; ``None`` for nothing.
        bad_workers: Who does something else, in a simulation of attacks.
        algorithm: What is done at the workers, and with what they send.
        server_state: What the server keeps for the algorithm.
        first_buffers: The module's buffers at the start of the fit.
        clock: Is told what the round's time goes to.
        checks_cohort: Whether too few updates stop the run; not those of a sequential round, or of a replay.
    """

    federation: Federation
    module: pl.LightningModule
    passes_batch_idx: bool
    accumulate: int
    audience: Audience
    tolerance: Tolerance
    aggregation: AggregationRule | None
    aggregator: Worker | None
    postprocess: Postprocessing | None
    bad_workers: BadWorkers | None
    algorithm: Algorithm
    server_state: ServerState
    first_buffers: Sequence[Tensor]
    clock: PhaseClock
    checks_cohort: bool


class _Progress:
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

    def _begin_aggregation(self) -> Aggregation:
        chain = self._terms.postprocess if self.update == "parameters" else None
        attack = self._terms.bad_workers.attack if self._terms.bad_workers is not None else None
        collusion = attack if isinstance(attack, Collusion) else None
        # All but the plain mean see how far each worker has gone.
        needed = any(part is not None for part in (self._rule, chain, collusion))
        start = self._starting_point() if needed else ()
        if self._terms.aggregator is None:
            return AtController(self._rule, start, chain, self._trained, collusion)
        return AtTrustedWorker(self._terms.aggregator, self._rule, start, chain, self._trained, collusion)

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
            return  # nobody was drawn, and nobody failed
        if sent < least:
            raise CohortTooSmall(plan.round, sent, least, skipped)

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
        several, clock = len(plan.assignments) > 1, self._terms.clock
        clock.turn_to("send")
        start = self._snapshot()
        metrics = take_states(self._module)
        aggregation = self._begin_aggregation()
        progress = _Progress(plan, aggregation, VisitBook(self._module, self._terms.audience, plan))

        def undo() -> None:
            start.restore()
            put_states(self._module, metrics)

        try:
            for assignment in self._not_done_together(progress):
                try:
                    clock.turn_to("send")
                    member, report = self._attempt(assignment, progress, undo)
                except RoundFailed as failure:
                    self._skip(failure, progress)
                    undo()
                    continue
                clock.turn_to("aggregate")
                if reshaped := start.reshaped_buffer():
                    raise RoundFailed(assignment.worker, plan.round, None, _REMEDY.format(reshaped))
                weight = self._weight_of(assignment, member)
                aggregation.add(self._module, self.update, weight)
                start.restore()
                clock.turn_to("log")
                progress.end(member, report, weight)
            reports, skipped = progress.reports, progress.skipped
            self._require_enough(plan, len(reports), skipped)
        except BaseException:
            undo()
            raise
        clock.turn_to("aggregate")
        if several:
            put_states(self._module, metrics)
        mean = aggregation.result()
        average, server_state = self._finished(mean, len(reports))
        clock.turn_to("log")
        return RoundResult(
            average=average,
            buffers=[*self._module.buffers()] if mean is None else mean.buffers,
            server_state=server_state,
            loss=_mean_loss(reports),
            logs=combine_logs(report.logs for report, _ in reports),
            metrics=tuple(report.metrics for report, _ in reports) if several else (),
            visits=tuple(progress.records),
            skipped=skipped,
            samples=sum(report.samples for report, _ in reports),
            wastes_gradients=any(report.wastes_gradients for report, _ in reports),
        )

    def _weight_of(self, assignment: Assignment, member: Member) -> float:
        weight = assignment.weight
        return self._terms.algorithm.weight(member.samples) if weight is None else weight

    def _not_done_together(self, progress: _Progress) -> Sequence[Assignment]:
        """Carry out what visits can be carried out together, and return the others."""
        return progress.plan.assignments

    def _skip(self, failure: RoundFailed, progress: _Progress) -> None:
        """Go on without a worker, or raise."""
        if not self._tolerance.skips(failure.kind):
            raise failure
        progress.skipped[failure.worker] = failure.reason

    def _attempt(
        self, assignment: Assignment, progress: _Progress, undo: Callable[[], None], failures: int = 0
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

    def _visit(self, member: Member, assignment: Assignment, progress: _Progress) -> VisitReport:
        with in_round(progress.plan.round):
            report = self._work(member, self._visit_of(assignment, progress.plan), progress.aggregation)
        self._check(report, assignment.worker, progress.plan.round)
        return report

    def _check(self, report: VisitReport, worker: str, round: int) -> None:
        if report.failed:
            raise RoundFailed(worker, round, None, "the update is not finite", "nonfinite")

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


class GradientRound(Round):
    """Every worker computes gradients on one batch; they are averaged and the user's optimizer steps.

    With the whole cohort this is FedSGD (McMahan et al. 2017, section 2); with one worker, it is an
    ordinary training step on that worker's batch.
    """

    update = "gradients"

    @override
    def run(self, plan: Plan) -> RoundResult:
        # What earlier rounds have accumulated stays at the controller.
        accumulated = [(parameter, parameter.grad) for parameter in self._module.parameters()]
        try:
            return super().run(plan)
        finally:
            for parameter, gradient in accumulated:
                parameter.grad = gradient

    @override
    def _work(self, member: Member, visit: Visit, aggregation: Aggregation) -> VisitReport:
        worker = member.worker
        module = worker.send(self._module)
        with aggregation.fetched(worker, module, self.update):
            self._terms.clock.turn_to("work")
            report: VisitReport = worker.run(compute_gradients, module, member.stream, visit)
            self._terms.clock.turn_to("send")
        return report

    @override
    def _snapshot(self) -> ModuleSnapshot:
        return ModuleSnapshot(self._module, trainable=False)

    @override
    def _starting_point(self) -> Sequence[Tensor]:
        return [
            torch.zeros_like(parameter) if parameter.requires_grad else parameter.detach()
            for parameter in self._module.parameters()
        ]

    @override
    def _finished(self, mean: Update | None, cohort: int) -> tuple[Sequence[Tensor | None], ServerState]:
        if mean is None:
            return [None for _ in self._module.parameters()], self._terms.server_state
        average = [t if there else None for t, there in zip(mean.tensors, mean.present, strict=True)]
        return average, self._terms.server_state


class LocalRound(Round):
    """Every worker trains for some steps with the user's optimizers; the resulting parameters are averaged.

    Args:
        terms: What with.
        optimization: The module's optimizers, which go along to the workers.
        together: Carries out visits together; ``None`` to make one after the other.
    """

    update = "parameters"

    def __init__(
        self, terms: RoundTerms, optimization: Optimization, together: Together | None = None
    ) -> None:
        super().__init__(terms)
        self._optimization = optimization
        self._together = together
        self._procedure: LocalProcedure | None = None
        self._bad: frozenset[str] = frozenset()
        self._state = terms.server_state

    @override
    def run(self, plan: Plan) -> RoundResult:
        algorithm = self._terms.algorithm
        question = algorithm.survey(self._state, plan)
        if question is None or self._federation.alone:
            return self._carry_out(algorithm.procedure(self._state, plan), plan)
        survey = Survey(self._terms, self._optimization, question)
        asked = survey.run(plan)
        if not survey.answers:
            return asked
        self._state = {**self._state, **survey.answers}
        result = self._carry_out(algorithm.procedure(self._state, plan), plan)
        return replace(result, visits=with_traffic_of(result.visits, asked.visits))

    def _carry_out(self, procedure: LocalProcedure | None, plan: Plan) -> RoundResult:
        if self._terms.bad_workers is not None:
            self._bad = self._terms.bad_workers.among(self._federation.samples, plan.seed)
        self._procedure = procedure
        with self._optimization.one_round():
            return super().run(plan)

    @override
    def _work(self, member: Member, visit: Visit, aggregation: Aggregation) -> VisitReport:
        worker = member.worker
        if self._terms.algorithm.buffers == "reset":
            self._reset_buffers()
        procedure = self._procedure_of(worker.id)
        sends = procedure is not None and procedure.sends
        if self._terms.aggregator is None and not sends and _lends(worker):
            lent = (self._module, self._optimization.optimizers)
            with self._optimization.one_visit(visit.steps):
                self._terms.clock.turn_to("work")
                lent_report: VisitReport = worker.lend(
                    train_locally, lent, member.stream, member.memory, visit, procedure
                )
            return lent_report
        # What is sent has the settings of the round; what a visit elsewhere leaves is back when it ends.
        with self._optimization.one_visit(visit.steps):
            module = worker.send(self._module)
            optimizers = [worker.send(optimizer) for optimizer in self._optimization.optimizers]
            visit = replace(visit, schedulers=self._optimization.schedulers_for(worker))
            with (
                aggregation.fetched(worker, module, self.update, member.memory if sends else None),
                afterwards(partial(aggregation.release, worker), optimizers),
            ):
                self._terms.clock.turn_to("work")
                report: VisitReport = worker.run(
                    train_locally, module, optimizers, member.stream, member.memory, visit, procedure
                )
                self._terms.clock.turn_to("send")
            self._optimization.take_schedulers(report.schedulers)
        return report

    def _procedure_of(self, worker: str) -> LocalProcedure | None:
        """Return what a worker does: the algorithm's part, what a bad worker makes of it, what is sent."""
        procedure, bad_workers, chain = self._procedure, self._terms.bad_workers, self._terms.postprocess
        if bad_workers is not None:
            procedure = attacked(bad_workers.attack, procedure, bad=worker in self._bad)
        return procedure if chain is None else ProcessedTraining(chain, procedure)

    @torch.no_grad()
    def _reset_buffers(self) -> None:
        for buffer, first in zip(self._module.buffers(), self._terms.first_buffers, strict=True):
            buffer.copy_(first)

    @override
    def _not_done_together(self, progress: _Progress) -> Sequence[Assignment]:
        plan, together = progress.plan, self._together
        alone = len({assignment.worker for assignment in plan.assignments}) < max(2, len(plan.assignments))
        if together is None or alone:
            return plan.assignments
        if reason := self._why_one_by_one():
            together.refuse(reason)
            return plan.assignments
        visits = [
            JointVisit(self._federation.members[assignment.worker], self._visit_of(assignment, plan))
            for assignment in plan.assignments
        ]
        left = dict(enumerate(plan.assignments))
        clock = self._terms.clock
        clock.turn_to("work")
        with in_round(plan.round):
            for done in together.carry_out(self._module, self._optimization.optimizers, visits):
                clock.turn_to("log")
                self._take_in(done, [left.pop(number) for number in done.chunk.numbers], progress)
                clock.turn_to("work")
        return list(left.values())

    def _why_one_by_one(self) -> str:
        """Say what works with one visit at a time; nothing if nothing does."""
        terms = self._terms
        for name in ("aggregator", "postprocess", "bad_workers"):
            if getattr(terms, name) is not None:
                return f"{name} works with one visit at a time"
        if self._procedure is not None or terms.algorithm.buffers != "average":
            return f"{terms.algorithm!r} works with one visit at a time"
        return ""

    def _take_in(self, done: DoneTogether, assignments: Sequence[Assignment], progress: _Progress) -> None:
        """Let the updates of a chunk of visits into the aggregate, and record the visits."""
        weights: dict[int, float] = {}
        for row, assignment in enumerate(assignments):
            member = self._federation.members[assignment.worker]
            progress.visits.begin(member, assignment)
            report = done.parts[row].finish(done.chunk.reports[row])
            try:
                self._check(report, assignment.worker, progress.plan.round)
            except RoundFailed as failure:
                self._skip(failure, progress)
                continue
            weights[row] = self._weight_of(assignment, member)
            progress.end(member, report, weights[row])
        self._terms.clock.turn_to("aggregate")
        progress.aggregation.add_chunk(done.chunk, weights)

    @override
    def _finished(self, mean: Update | None, cohort: int) -> tuple[Sequence[Tensor | None], ServerState]:
        if mean is None:
            return self._starting_point(), self._terms.server_state
        collected = Collected(
            start=self._starting_point(),
            mean=mean.tensors,
            extras=mean.extras,
            trained=self._trained,
            cohort=cohort,
            workers=len(self._federation.samples),
        )
        return self._terms.algorithm.finish(self._state, collected)


class Survey(LocalRound):
    """Ask a round's cohort something before it trains; nobody listens, and nothing is taken over.

    Args:
        terms: What with.
        optimization: The module's optimizers.
        question: What workers are to do; they leave the module as it is.

    Attributes:
        answers: The mean of what they have sent, by name; empty where nobody has.
    """

    def __init__(self, terms: RoundTerms, optimization: Optimization, question: LocalProcedure) -> None:
        super().__init__(replace(terms, audience=Audience()), optimization)
        self._question = question
        self.answers: Extras = {}

    @override
    def run(self, plan: Plan) -> RoundResult:
        return self._carry_out(self._question, plan)

    @override
    def _finished(self, mean: Update | None, cohort: int) -> tuple[Sequence[Tensor | None], ServerState]:
        self.answers = {} if mean is None else mean.extras
        return self._starting_point(), self._terms.server_state


_REMEDY = (
    "the buffer {!r} has changed its shape, and buffers are averaged. Keep it at one shape, or keep what "
    "grows in an attribute that is no buffer"
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


def _lends(worker: Worker) -> TypeGuard[VirtualWorker]:
    """Tell whether a module need not be sent to a worker and fetched, because nobody would notice."""
    return isinstance(worker, VirtualWorker) and worker.lends
