"""One update of an asynchronous server: visits that begin with earlier versions of the global model.

A visit is carried out when it arrives. Until then nothing is kept of it but the version that it begins with,
of which there are at most as many as workers are under way. Who arrives when, ``algorithms.asynchronous``
says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms import Assignment, Asynchronous, Plan
from fedlightning.local.visit import VisitReport
from fedlightning.strategy.federation import Member
from fedlightning.strategy.local_round import LocalRound
from fedlightning.strategy.optimization import Optimization
from fedlightning.strategy.round_result import RoundResult
from fedlightning.strategy.rounds import Progress, RoundTerms
from fedlightning.strategy.together import Together
from fedlightning.strategy.versions import Version, Versions


class AsynchronousRound(LocalRound):
    """Carry out the visits that fill the server's buffer, each from the version that it begins with.

    Args:
        terms: What with.
        optimization: The module's optimizers, which go along to the workers.
        together: Says that visits are made one after the other, if they were to be made together.
        asynchronous: What an arrival amounts to.
        versions: Earlier versions of the global model.
    """

    def __init__(
        self,
        terms: RoundTerms,
        optimization: Optimization,
        together: Together | None,
        asynchronous: Asynchronous,
        versions: Versions,
    ) -> None:
        super().__init__(terms, optimization, together)
        self._asynchronous = asynchronous
        self._versions = versions

    @override
    def run(self, plan: Plan) -> RoundResult:
        self._now = Version.of(self._module, self._optimization.settings)
        result = super().run(plan)
        there = {**self._versions, plan.round: self._now}
        return replace(result, versions={number: there[number] for number in plan.flights.versions})

    @override
    def _visit(self, member: Member, assignment: Assignment, progress: Progress) -> VisitReport:
        began = progress.plan.round if assignment.version is None else assignment.version
        staleness = progress.plan.round - began
        start = self._versions[began] if staleness else self._now
        if staleness:
            start.load_into(self._module)
        with self._optimization.starting_from(start.settings):
            report = super()._visit(member, assignment, progress)
        self._take_in_arrival(start, staleness)
        return report

    @torch.no_grad()
    def _take_in_arrival(self, start: Version, staleness: int) -> None:
        """Put on the module what its update would be, had the visit begun with the global model of now."""
        server, now = self._asynchronous, self._now
        self._exchange([*self._module.parameters()], now.parameters, start.parameters, staleness)
        if server.mixes_buffers:
            ends = [*self._module.buffers()]
            floating = [n for n, buffer in enumerate(ends) if buffer.is_floating_point()]
            tensors = (ends, now.buffers, start.buffers)
            new, here, old = ([group[n] for n in floating] for group in tensors)
            self._exchange(new, here, old, staleness)

    def _exchange(
        self, ends: Sequence[Tensor], now: Sequence[Tensor], start: Sequence[Tensor], staleness: int
    ) -> None:
        arrived = self._asynchronous.arrived(now, start, [end.detach().clone() for end in ends], staleness)
        for end, tensor in zip(ends, arrived, strict=True):
            end.copy_(tensor)

    @override
    def _why_one_by_one(self) -> str:
        return f"{type(self._asynchronous).__name__} works with one visit at a time"
