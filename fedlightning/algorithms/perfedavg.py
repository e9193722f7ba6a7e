"""Per-FedAvg: a global model that is one step away from a good personal one.

Fallah et al. 2020, "Personalized Federated Learning with Theoretical Guarantees: A Model-Agnostic
Meta-Learning Approach", Algorithm 1, in its first-order form (section 3, FO).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.algorithm import Algorithm, Job, ServerState, loss_is_not_told
from fedlightning.algorithms.numbers import require_at_least
from fedlightning.algorithms.plan import Plan
from fedlightning.local.fine_tuning import fine_tune
from fedlightning.local.procedure import LocalModel, LocalProcedure, LocalTraining
from fedlightning.workers.remote import record


@dataclass(frozen=True)
class PerFedAvg(Algorithm):
    """Let each local step follow the gradient at where a first step of rate ``alpha`` would have led.

    A visit's batches are taken in pairs: ``w' = w - alpha * grad f(w; first)``, and then the user's optimizer
    steps ``w`` along ``grad f(w'; second)``. A batch that is left over is both. Before an evaluation at a
    worker, the module takes one step of rate ``alpha`` on the worker's training data.

    Args:
        alpha: Rate of the inner step, at least 0.
        weighting: As in `FedAvg`.

    Example:
        >>> PerFedAvg(alpha=0.05)
        PerFedAvg(weighting='samples', buffers='average', alpha=0.05)
    """

    alpha: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least("alpha", self.alpha, 0)

    @override
    def why_not(self, job: Job) -> Iterator[str]:
        yield from loss_is_not_told(job, "Per-FedAvg takes a step before an evaluation")

    @override
    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        return StepsAhead(self.alpha)

    @override
    def evaluation(self, state: ServerState) -> LocalProcedure | None:
        return StepsAhead(self.alpha)


@record
@dataclass(frozen=True)
class StepsAhead(LocalProcedure):
    """Train by gradients of one step ahead.

    Args:
        alpha: Rate of that step.
    """

    alpha: float

    revisits: ClassVar[bool] = True

    @override
    def run(self, local: LocalTraining) -> None:
        aside = local.aside()
        for step in range(0, local.length, 2):
            start = local.copy_parameters()

            def look_ahead(positions: Sequence[int], gradients: Sequence[Tensor]) -> None:
                for position, gradient in zip(positions, gradients, strict=True):
                    parameter = local.parameters[position]
                    parameter.sub_(gradient, alpha=self.alpha)
                    parameter.grad = None  # so that the optimizer takes no step

            def step_from_start(positions: Sequence[int], gradients: Sequence[Tensor]) -> None:
                local.write_parameters(start)  # noqa: B023 - called within this step

            with aside:
                local.train(look_ahead, first=step, steps=1)
            local.train(step_from_start, first=min(step + 1, local.length - 1), steps=1)

    @override
    def personalise(self, local: LocalModel) -> None:
        fine_tune(local, steps=1, rate=self.alpha)
