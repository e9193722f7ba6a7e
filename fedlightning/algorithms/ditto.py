"""Ditto: a personal model beside the global one, on a leash to it.

Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization", Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.algorithm import Algorithm, ServerState
from fedlightning.algorithms.numbers import require_at_least
from fedlightning.algorithms.plan import Plan
from fedlightning.local.procedure import LocalModel, LocalProcedure, LocalTraining
from fedlightning.workers.remote import record


@dataclass(frozen=True)
class Ditto(Algorithm):
    """Train the global model as FedAvg does, and at each worker a whole model of its own.

    The personal model ``v`` minimises the worker's loss plus ``lam / 2 * |v - w|^2``, where ``w`` is the
    global model of the round, on the batches of the visit. The global model is FedAvg's, bit for bit, where
    training draws no random numbers. Buffers are the global model's.

    Args:
        lam: How strongly personal models are drawn to the global one, at least 0.
        weighting: As in `FedAvg`.

    Example:
        >>> Ditto(lam=0.5)
        Ditto(weighting='samples', buffers='average', lam=0.5)
    """

    lam: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least("lam", self.lam, 0)

    @override
    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        return GlobalAndPersonal(self.lam)

    @override
    def evaluation(self, state: ServerState) -> LocalProcedure | None:
        return GlobalAndPersonal(self.lam)


@record
@dataclass(frozen=True)
class GlobalAndPersonal(LocalProcedure):
    """Train the global model, then the worker's own.

    Args:
        lam: How strongly the personal model is drawn to the global one.
    """

    lam: float

    revisits: ClassVar[bool] = True

    @override
    def run(self, local: LocalTraining) -> None:
        start = local.copy_parameters()
        local.train()
        trained = local.copy_parameters()

        def pull(positions: Sequence[int], gradients: Sequence[Tensor]) -> None:
            for position, gradient in zip(positions, gradients, strict=True):
                gradient.add_(local.parameters[position] - start[position], alpha=self.lam)

        local.write_parameters(local.kept("personal") or start)
        with local.aside():
            local.train(pull)
        local.keep("personal", local.copy_parameters())
        local.write_parameters(trained)

    @override
    def personalise(self, local: LocalModel) -> None:
        local.write_parameters(local.kept("personal") or local.copy_parameters())
