"""A round of local training, from which parameters come back; and one that only asks workers something."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TypeGuard

import torch
from torch import Tensor, nn
from typing_extensions import override

from fedlightning.algorithms import (
    Assignment,
    Collected,
    Extras,
    Plan,
    ServerState,
    Update,
)
from fedlightning.algorithms.attacks import attacked
from fedlightning.algorithms.postprocessing import ProcessedTraining
from fedlightning.local.one_by_one.step_tapes import StepTapes
from fedlightning.local.procedure import LocalProcedure
from fedlightning.local.training import train_locally
from fedlightning.local.visit import Visit, VisitReport
from fedlightning.strategy.aggregation import Aggregation, afterwards
from fedlightning.strategy.cohort_round import CohortRound
from fedlightning.strategy.errors import RoundFailed, failures_named, interrupts_named
from fedlightning.strategy.events import Audience
from fedlightning.strategy.federation import Member
from fedlightning.strategy.optimization import Optimization
from fedlightning.strategy.round_result import RoundResult
from fedlightning.strategy.rounds import Progress, RoundTerms
from fedlightning.strategy.spread import DoneVisit, Spread, SpreadRound, SpreadVisit
from fedlightning.strategy.together import DoneTogether, JointVisit, Together
from fedlightning.strategy.traffic import with_traffic_of
from fedlightning.workers import VirtualWorker, Worker, in_round
from fedlightning.workers.loan import Loan
from fedlightning.workers.random import derive_seed


class LocalRound(CohortRound):
    """Every worker trains for some steps with the user's optimizers; the resulting parameters are averaged.

    Args:
        terms: What with.
        optimization: The module's optimizers, which go along to the workers.
        together: Carries out visits together; ``None`` to make one after the other.
        spread: Makes visits in other processes; ``None`` to make them in this one.
        tapes: Those of steps of earlier rounds; ``None`` to take each step anew.
    """

    update = "parameters"

    def __init__(
        self,
        terms: RoundTerms,
        optimization: Optimization,
        together: Together | None = None,
        spread: Spread | None = None,
        tapes: StepTapes | None = None,
    ) -> None:
        super().__init__(terms, optimization, together, spread, tapes)
        self._procedure: LocalProcedure | None = None
        self._loan = Loan(train_locally, (self._module, optimization.optimizers))
        self._bad: frozenset[str] = frozenset()
        self._state = terms.server_state
        self._not_sent: Sequence[Tensor] = ()

    @override
    def run(self, plan: Plan) -> RoundResult:
        algorithm = self._terms.algorithm
        question = algorithm.survey(self._state, plan)
        if question is None or self._federation.alone:
            return self._carry_out(algorithm.procedure(self._state, plan), plan)
        survey = Survey(self._terms, self._optimization, question, self._spread)
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
        with self._optimization.one_round(), self._broadcast(plan):
            result = self._with_nobody_made(plan)
            return super().run(plan) if result is None else result

    @contextmanager
    def _broadcast(self, plan: Plan) -> Iterator[None]:
        """Let the round begin where workers can, if less goes down to them than the global model."""
        if self._terms.downlink is None:
            yield
            return
        parameters = [parameter.detach() for parameter in self._module.parameters()]
        own = [parameter.clone() for parameter in parameters]
        seed = derive_seed(plan.seed, "downlink", plan.round)
        known = self._terms.downlink.broadcast(own, round=plan.round, seed=seed)
        self._not_sent = torch._foreach_sub(own, known)
        torch._foreach_copy_(parameters, known)
        try:
            yield
        finally:
            torch._foreach_copy_(parameters, own)

    @override
    def _like(self, terms: RoundTerms) -> LocalRound:
        other = LocalRound(terms, self._optimization.leaving_no_settings())
        other._procedure = self._procedure
        return other

    @override
    def update_of(self, plan: Plan) -> Update | None:
        with self._optimization.one_round():
            return super().update_of(plan)

    @override
    def _work(self, member: Member, visit: Visit, aggregation: Aggregation) -> VisitReport:
        worker = member.worker
        if self._terms.algorithm.buffers == "reset":
            self._reset_buffers()
        procedure = self._procedure_of(worker.id)
        sends = procedure is not None and procedure.sends
        downlink = self._terms.downlink
        if self._terms.aggregator is None and downlink is None and not sends and _lends(worker):
            with self._optimization.one_visit(visit.steps):
                self._terms.clock.turn_to("work")
                lent_report: VisitReport = worker.lend(
                    self._loan, member.stream, member.memory, visit, procedure
                )
            return lent_report
        # What is sent has the settings of the round; what a visit elsewhere leaves is back when it ends.
        with self._optimization.one_visit(visit.steps):
            with nullcontext() if downlink is None else without_values(self._module):
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
            if downlink is not None:
                downlink.delivered(worker.id)
            self._optimization.take_schedulers(report.schedulers)
        return report

    def _procedure_of(self, worker: str) -> LocalProcedure | None:
        """Return what a worker does: the algorithm's part, what a bad worker makes of it, what is sent."""
        procedure, bad_workers, chain = self._procedure, self._terms.bad_workers, self._terms.postprocess
        if bad_workers is not None:
            procedure = attacked(bad_workers.attack, procedure, bad=worker in self._bad)
        if chain is not None:
            procedure = ProcessedTraining(chain, procedure)
        return procedure if self._terms.downlink is None else self._terms.downlink.to(worker, procedure)

    @torch.no_grad()
    def _reset_buffers(self) -> None:
        for buffer, first in zip(self._module.buffers(), self._terms.first_buffers, strict=True):
            buffer.copy_(first)

    @override
    def _not_done_elsewhere(self, progress: Progress) -> Sequence[Assignment]:
        if self._spread is not None and len(progress.plan.assignments) > 1:
            if self._together is not None:
                self._together.refuse(self._why_one_by_one() or _MADE)
            self._done_in_processes(self._spread, progress)
            return ()
        return self._not_done_together(progress)

    def _done_in_processes(self, spread: Spread, progress: Progress) -> None:
        """Make the visits of a round in other processes, and take them in, in the order of the plan."""
        plan, terms, clock = progress.plan, self._terms, self._terms.clock
        visits = []
        for assignment in plan.assignments:
            member = self._federation.members[assignment.worker]
            visit, weight = self._visit_of(assignment, plan), self._weight_of(assignment, member)
            visits.append(SpreadVisit(member, visit, weight, self._procedure_of(assignment.worker)))
        resets = terms.algorithm.buffers == "reset"
        task = SpreadRound(
            module=self._module,
            optimization=self._optimization,
            start=[*self._module.parameters(), *(terms.first_buffers if resets else self._module.buffers())],
            visits=visits,
            takes_means=progress.aggregation.takes_means,
            processed=terms.postprocess is not None,
            retries=self._tolerance.retries_of("error"),
        )
        clock.turn_to("work")
        with (
            interrupts_named(progress.next_worker, plan.round),
            in_round(plan.round),
            closing(spread.carry_out(task)) as blocks,
        ):
            for block in blocks:
                clock.turn_to("log")
                for place, done in enumerate(block.visits, block.first):
                    self._take_visit_in(done, visits[place], plan.assignments[place], progress)
                if block.update is not None:
                    clock.turn_to("aggregate")
                    number = progress.block_of(plan.assignments[block.first].worker)
                    progress.aggregation.add_update(block.update, block.weight, number)
                clock.turn_to("work")

    def _take_visit_in(
        self, done: DoneVisit, visit: SpreadVisit, assignment: Assignment, progress: Progress
    ) -> None:
        """Record a visit whose update is in the aggregate, or skip it."""
        worker, round = assignment.worker, progress.plan.round
        try:
            with failures_named(worker, round):
                progress.visits.begin(visit.member, assignment)
                report = done.finish(visit, self._optimization)
            self._check(report, worker, round)
        except RoundFailed as failure:
            self._skip(failure, progress)
            return
        progress.end(visit.member, report, visit.weight)

    def _not_done_together(self, progress: Progress) -> Sequence[Assignment]:
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
            chunks = together.carry_out(self._module, self._optimization.optimizers, visits)
            for block, done in enumerate(chunks):
                clock.turn_to("log")
                self._take_in(done, [left.pop(number) for number in done.chunk.numbers], progress, block)
                clock.turn_to("work")
        return list(left.values())

    @override
    def _why_one_by_one(self) -> str:
        """Say what works with one visit at a time; nothing if nothing does."""
        terms = self._terms
        for name in ("aggregator", "postprocess", "downlink", "bad_workers"):
            if getattr(terms, name) is not None:
                return f"{name} works with one visit at a time"
        if self._procedure is not None or terms.algorithm.buffers != "average":
            return f"{terms.algorithm!r} works with one visit at a time"
        return ""

    def _take_in(
        self, done: DoneTogether, assignments: Sequence[Assignment], progress: Progress, block: int
    ) -> None:
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
        progress.aggregation.add_chunk(done.chunk, weights, block)

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
        average, state = self._terms.algorithm.finish(self._state, collected)
        if self._not_sent:  # what workers could not know of the global model is not lost to it
            average = torch._foreach_add(list(average), list(self._not_sent))
        return average, state


_MADE = (
    "other processes do that at workers made from a number, which keep nothing, where nobody looks at visits"
)


class Survey(LocalRound):
    """Ask a round's cohort something before it trains; nobody listens, and nothing is taken over.

    Args:
        terms: What with.
        optimization: The module's optimizers.
        question: What workers are to do; they leave the module as it is.
        spread: As for `LocalRound`.

    Attributes:
        answers: The mean of what they have sent, by name; empty where nobody has.
    """

    def __init__(
        self, terms: RoundTerms, optimization: Optimization, question: LocalProcedure, spread: Spread | None
    ) -> None:
        super().__init__(replace(terms, audience=Audience()), optimization, spread=spread)
        self._question = question
        self.answers: Extras = {}

    @override
    def run(self, plan: Plan) -> RoundResult:
        return self._carry_out(self._question, plan)

    @override
    def _finished(self, mean: Update | None, cohort: int) -> tuple[Sequence[Tensor | None], ServerState]:
        self.answers = {} if mean is None else mean.extras
        return self._starting_point(), self._terms.server_state


@contextmanager
def without_values(module: nn.Module) -> Iterator[None]:
    """Let a module be sent within the block without the values of its parameters, which go another way."""
    parameters = list(module.parameters())
    values = [(parameter.data, parameter.grad) for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
        parameter.data = parameter.data.new_empty(0)
    try:
        yield
    finally:
        for parameter, (value, gradient) in zip(parameters, values, strict=True):
            parameter.data = value
            parameter.grad = gradient


def _lends(worker: Worker) -> TypeGuard[VirtualWorker]:
    """Tell whether a module need not be sent to a worker and fetched, because nobody would notice."""
    return isinstance(worker, VirtualWorker) and worker.lends
