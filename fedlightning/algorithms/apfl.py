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
    worker uses. The paper's ``alpha`` may also be learned; here it is given.

    Args:
        alpha: The personal model's share of the mixture, between 0 and 1; 0 makes every worker use ``w``.
        weighting: As in `FedAvg`.

    Raises:
        ValueError: ``alpha`` is no share.

    Example:
        >>> APFL(alpha=0.25)
        APFL(weighting='samples', buffers='average', alpha=0.25)
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be between 0 and 1, got {self.alpha!r}.")

    @override
    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        return MixedTraining(self.alpha) if self.alpha else None

    @override
    def evaluation(self, state: ServerState) -> LocalProcedure | None:
        return MixedTraining(self.alpha) if self.alpha else None


@record
@dataclass(frozen=True)
class MixedTraining(LocalProcedure):
    """Train both models of a worker.

    Args:
        alpha: The personal model's share of the mixture.
    """

    alpha: float

    revisits: ClassVar[bool] = True

    @override
    def run(self, local: LocalTraining) -> None:
        own = local.kept("personal") or local.copy_parameters()
        aside = local.aside()
        for step in range(local.length):
            shared = local.copy_parameters()

            def to_own(positions: Sequence[int], gradients: Sequence[Tensor]) -> None:
                torch._foreach_mul_(list(gradients), self.alpha)
                local.write_parameters(own)  # noqa: B023 - called within this step

            local.write_parameters(self._mixed(own, shared))
            with aside:
                local.train(to_own, first=step, steps=1)
            own = local.copy_parameters()
            local.write_parameters(shared)
            local.train(first=step, steps=1)
        local.keep("personal", own)

    @override
    def personalise(self, local: LocalModel) -> None:
        shared = local.copy_parameters()
        local.write_parameters(self._mixed(local.kept("personal") or shared, shared))

    def _mixed(self, own: Sequence[Tensor], shared: Sequence[Tensor]) -> list[Tensor]:
        return list(torch._foreach_lerp(list(shared), list(own), self.alpha))
