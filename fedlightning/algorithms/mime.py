"""Mime and MimeLite: local steps as a central optimizer would take them, by statistics that the server keeps.

Karimireddy et al. 2021, "Breaking the centralized barrier for cross-device federated learning", Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import SGD
from typing_extensions import override

from fedlightning.algorithms.algorithm import (
    Algorithm,
    Collected,
    Job,
    ServerState,
    Weighting,
    loss_is_not_told,
)
from fedlightning.algorithms.fixed_statistics import FixedMomentum, FixedStatistics
from fedlightning.algorithms.plan import Plan
from fedlightning.local.gradients_aside import Gradients, gradients_aside, mean_gradient
from fedlightning.local.procedure import LocalProcedure, LocalTraining
from fedlightning.workers.remote import record

GRADIENT = "gradient"
"""By this name goes the mean gradient over workers at the global model."""


@dataclass(frozen=True)
class MimeLite(Algorithm):
    """Let workers step by momentum or Adam whose statistics stay fixed in a round, and are the server's.

    A local step is ``y - eta * U(g, s)`` where the server's statistics ``s`` know what the cohorts of earlier
    rounds have found at the global model, rather than what one worker's own steps have. After a round, ``s``
    learns the mean over workers of the gradient at the round's start, taken over the visit's batches: with
    ``local_epochs``, all of a worker's data. ``base=FixedMomentum(beta=0)`` is FedAvg, bit for bit.

    The learning rate is that of the plain SGD in ``configure_optimizers``.

    Args:
        base: The optimizer: `FixedMomentum`, `FixedRMSProp`, `FixedAdam`, or one of your own.
        weighting: ``"uniform"`` as in the paper, or as in `FedAvg`.
        buffers: As in `FedAvg`.

    Raises:
        TypeError: ``base`` is none of these.

    Example:
        >>> MimeLite(base=FixedMomentum(beta=0.9)).weight(600)
        1
    """

    base: FixedStatistics = field(default_factory=FixedMomentum)
    weighting: Weighting = field(default="uniform", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.base, FixedStatistics):
            raise TypeError(
                f"base must be one such as fedlightning.algorithms.FixedMomentum(beta=0.9), got "
                f"{self.base!r}."
            )

    @override
    def why_not(self, job: Job) -> Iterator[str]:
        name = type(self).__name__
        yield from loss_is_not_told(job, f"{name} takes gradients without steps")
        if job.update == "sequential":
            yield f"{name} averages workers. Use update='averaged', or another algorithm."
        for optimizer in job.optimizers:
            groups = optimizer.param_groups
            if type(optimizer) is not SGD or any(g["momentum"] or g["weight_decay"] for g in groups):
                yield (
                    f"{name}'s statistics are the server's, and {type(optimizer).__name__} at the workers "
                    "has some of its own, or decays weights past them. Use torch.optim.SGD(lr=...) in "
                    f"configure_optimizers, and {name}(base=FixedAdam(...)), for instance."
                )

    @override
    def begin(self, parameters: Sequence[Tensor]) -> ServerState:
        return self.base.begin(parameters)

    @override
    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        return MimeTraining(self.base, {name: list(state[name]) for name in self.base.names})

    @override
    @torch.no_grad()
    def finish(self, state: ServerState, collected: Collected) -> tuple[Sequence[Tensor], ServerState]:
        gradient = state.get(GRADIENT) or collected.extras[GRADIENT]
        learned = [self.base.learned(g, _at(state, self.base, p)) for p, g in enumerate(gradient)]
        return collected.mean, {name: [each[name] for each in learned] for name in self.base.names}


@dataclass(frozen=True)
class Mime(MimeLite):
    """Correct the gradients of `MimeLite` as well: ``g - g(x) + c``, where ``x`` is the global model.

    ``g(x)`` is the gradient on the same batch at ``x``, and ``c`` the cohort's mean gradient there. So
    workers are visited twice in a round, first for ``c`` and then to train, and a local step costs two.

    Args:
        base: As in `MimeLite`.
        weighting: As in `MimeLite`.
        buffers: As in `FedAvg`.

    Example:
        >>> Mime().base
        FixedMomentum(beta=0.9)
    """

    @override
    def survey(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        return GradientAtStart()

    @override
    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        statistics = {name: list(state[name]) for name in self.base.names}
        control = list(state[GRADIENT]) if GRADIENT in state else None
        return CorrectedMimeTraining(self.base, statistics, control)


@record
@dataclass(frozen=True)
class GradientAtStart(LocalProcedure):
    """Tell the mean gradient at the global model, and do nothing else."""

    sends: ClassVar[bool] = True
    revisits: ClassVar[bool] = True

    @override
    def run(self, local: LocalTraining) -> None:
        local.sent[GRADIENT] = mean_gradient(local)


@record
@dataclass(frozen=True)
class MimeTraining(LocalProcedure):
    """Train by fixed statistics, and tell the mean gradient at the global model.

    Args:
        base: The optimizer.
        statistics: What it knows of each parameter.
    """

    base: FixedStatistics
    statistics: dict[str, list[Tensor]]

    sends: ClassVar[bool] = True
    revisits: ClassVar[bool] = True

    @override
    def run(self, local: LocalTraining) -> None:
        local.sent[GRADIENT] = mean_gradient(local)

        def direct(positions: Sequence[int], gradients: Sequence[Tensor]) -> None:
            for position, gradient in zip(positions, gradients, strict=True):
                gradient.copy_(self.base.direction(gradient, _at(self.statistics, self.base, position)))

        local.train(direct)


@record
@dataclass(frozen=True)
class CorrectedMimeTraining(LocalProcedure):
    """Train by fixed statistics, along gradients whose variance and drift are taken out.

    Args:
        base: The optimizer.
        statistics: What it knows of each parameter.
        control: The cohort's mean gradient at the global model; ``None`` at a worker that is alone.
    """

    base: FixedStatistics
    statistics: dict[str, list[Tensor]]
    control: list[Tensor] | None

    sends: ClassVar[bool] = True
    revisits: ClassVar[bool] = True

    @override
    def run(self, local: LocalTraining) -> None:
        start, control = local.copy_parameters(), self.control
        if control is None:
            control = local.sent[GRADIENT] = mean_gradient(local)
        for first in range(0, local.length, local.accumulated):
            steps = min(local.accumulated, local.length - first)
            at_start = iter(_gradients_at(start, local, first, steps))
            local.train(partial(self._correct, local, at_start, control), first=first, steps=steps)

    def _correct(
        self,
        local: LocalTraining,
        at_start: Iterator[Gradients],
        control: Sequence[Tensor],
        positions: Sequence[int],
        gradients: Sequence[Tensor],
    ) -> None:
        before = next(at_start, None)
        for position, gradient in zip(positions, gradients, strict=True):
            if before is None:  # it overflowed in 16 bits: a step that is passed over, as such steps are
                local.parameters[position].grad = None
                continue
            corrected = gradient + control[position]
            if position in before:
                corrected = corrected - before[position]
            gradient.copy_(self.base.direction(corrected, _at(self.statistics, self.base, position)))


def _gradients_at(start: Sequence[Tensor], local: LocalTraining, first: int, steps: int) -> list[Gradients]:
    now = local.copy_parameters()
    local.write_parameters(start)
    taken = gradients_aside(local, first=first, steps=steps)
    local.write_parameters(now)
    return taken


def _at(state: ServerState, base: FixedStatistics, position: int) -> dict[str, Tensor]:
    return {name: state[name][position] for name in base.names}
