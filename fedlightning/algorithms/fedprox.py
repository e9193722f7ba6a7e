"""FedProx: a leash on how far local training may go.

Li et al. 2020, "Federated Optimization in Heterogeneous Networks", Algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.algorithm import Algorithm, ServerState
from fedlightning.algorithms.numbers import require_at_least
from fedlightning.algorithms.plan import Plan
from fedlightning.local.procedure import LocalProcedure, LocalTraining
from fedlightning.workers.remote import record


@dataclass(frozen=True)
class FedProx(Algorithm):
    """Add ``mu / 2 * |w - w_t|^2`` to every worker's loss, where ``w_t`` is the global model of the round.

    The term's gradient ``mu * (w - w_t)`` is added before each local step, after the user's own clipping.
    ``mu=0`` is FedAvg, bit for bit.

    Args:
        mu: Weight of the proximal term, at least 0. The paper tries 0.001, 0.01, 0.1 and 1.
        weighting: As in `FedAvg`.

    Raises:
        ValueError: ``mu`` is negative.

    Example:
        >>> FedProx(mu=0.1).weight(600)
        600
    """

    mu: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least("mu", self.mu, 0)

    @override
    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        return ProximalTraining(self.mu) if self.mu else None


@record
@dataclass(frozen=True)
class ProximalTraining(LocalProcedure):
    """Train on a leash.

    Args:
        mu: Weight of the proximal term.
    """

    mu: float

    @override
    def run(self, local: LocalTraining) -> None:
        start = local.copy_parameters()

        def pull_back(positions: Sequence[int], gradients: Sequence[Tensor]) -> None:
            for position, gradient in zip(positions, gradients, strict=True):
                gradient.add_(local.parameters[position] - start[position], alpha=self.mu)

        local.train(correct=pull_back)
