"""A round from which gradients come back, for the user's optimizer to step along here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms import (
    Plan,
    ServerState,
    Update,
)
from fedlightning.local.gradient import compute_gradients
from fedlightning.local.visit import Visit, VisitReport
from fedlightning.strategy.aggregation import Aggregation
from fedlightning.strategy.federation import Member
from fedlightning.strategy.round_result import RoundResult
from fedlightning.strategy.rounds import Round, RoundTerms
from fedlightning.strategy.snapshot import ModuleSnapshot


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
    def _like(self, terms: RoundTerms) -> GradientRound:
        return GradientRound(terms)

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
