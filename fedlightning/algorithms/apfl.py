"""APFL: each worker's model is a mixture of its own and the global one.

Deng et al. 2020, "Adaptive Personalized Federated Learning", Algorithm 1, with a fixed mixture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.algorithm import Algorithm, ServerState
from fedlightning.algorithms.plan import Plan
from fedlightning.local.procedure import LocalModel, LocalProcedure, LocalTraining
from fedlightning.workers.remote import record


@dataclass(frozen=True)
class APFL(Algorithm):
    """Train, step by step on the same batches, the global model ``w`` and each worker's own ``v``.

    ``v`` follows the gradient of the loss of the mixture ``alpha * v + (1 - alpha) * w``, which is what a
    worker uses.

    Args:
        alpha: The personal model's share of the mixture, between 0 and 1; 0 makes every worker use ``w``,
            unless it is only where each begins.
        adaptive: Whether each worker learns a share of its own, by a step of gradient descent (equation 11)
            beside each of the models', at the rate of the module's first optimizer; cut to [0, 1].
        weighting: As in `FedAvg`.

    Raises:
        ValueError: ``alpha`` is no share.

    Example:
        >>> APFL(alpha=0.25)
        APFL(weighting='samples', buffers='average', alpha=0.25, adaptive=False)
    """

    alpha: float = 0.5
    adaptive: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be between 0 and 1, got {self.alpha!r}.")

    @override
    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        return self._mixed_training

    @override
    def evaluation(self, state: ServerState) -> LocalProcedure | None:
        return self._mixed_training

    @property
    def _mixed_training(self) -> LocalProcedure | None:
        return MixedTraining(self.alpha, self.adaptive) if self.alpha or self.adaptive else None


@record
@dataclass(frozen=True)
class MixedTraining(LocalProcedure):
    """Train both models of a worker.

    Args:
        alpha: The personal model's share of the mixture, or where it begins.
        adaptive: Whether the worker learns it.
    """

    alpha: float
    adaptive: bool = False

    revisits: ClassVar[bool] = True

    @override
    def run(self, local: LocalTraining) -> None:
        own = local.kept("personal") or local.copy_parameters()
        alpha = self._share(local)
        aside = local.aside()
        for step in range(local.length):
            shared, slopes = local.copy_parameters(), [0.0]
            rate = self._rate(local)

            def to_own(positions: Sequence[int], gradients: Sequence[Tensor]) -> None:
                if self.adaptive:
                    slopes.append(_slope(own, shared, positions, gradients))  # noqa: B023 - within this step
                torch._foreach_mul_(list(gradients), alpha)  # noqa: B023 - within this step
                local.write_parameters(own)  # noqa: B023 - within this step

            local.write_parameters(_mixed(own, shared, alpha))
            with aside:
                local.train(to_own, first=step, steps=1)
            own = local.copy_parameters()
            local.write_parameters(shared)
            local.train(first=step, steps=1)
            alpha = min(max(alpha - rate * sum(slopes), 0.0), 1.0)
        local.keep("personal", own)
        if self.adaptive:
            local.keep("alpha", [torch.tensor(alpha, dtype=torch.float64)])

    @override
    def personalise(self, local: LocalModel) -> None:
        shared = local.copy_parameters()
        local.write_parameters(_mixed(local.kept("personal") or shared, shared, self._share(local)))

    def _share(self, local: LocalModel) -> float:
        kept = local.kept("alpha") if self.adaptive else None
        return self.alpha if kept is None else float(kept[0])

    def _rate(self, local: LocalTraining) -> float:
        return float(local.optimizers[0].param_groups[0]["lr"]) if self.adaptive else 0.0


def _mixed(own: Sequence[Tensor], shared: Sequence[Tensor], alpha: float) -> list[Tensor]:
    return list(torch._foreach_lerp(list(shared), list(own), alpha))


def _slope(
    own: Sequence[Tensor], shared: Sequence[Tensor], positions: Sequence[int], gradients: Sequence[Tensor]
) -> float:
    """Return the derivative of the mixture's loss by ``alpha``: the gradient along ``v - w``."""
    pairs = zip(positions, gradients, strict=True)
    return sum(float(((own[place] - shared[place]) * gradient).sum()) for place, gradient in pairs)
