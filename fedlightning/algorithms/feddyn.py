"""FedDyn: every worker's loss is changed from round to round, so that all agree on where the optimum is.

Acar et al. 2021, "Federated Learning Based on Dynamic Regularization", Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.algorithm import Algorithm, Collected, Job, ServerState, Weighting
from fedlightning.algorithms.numbers import require_at_least
from fedlightning.algorithms.plan import Plan
from fedlightning.local.procedure import LocalProcedure, LocalTraining
from fedlightning.workers.remote import record


@dataclass(frozen=True)
class FedDyn(Algorithm):
    """Add ``-<g_i, w> + alpha / 2 * |w - w_t|^2`` to worker ``i``'s loss, and correct the mean by ``h``.

    After its local training from ``w_t`` to ``w_i``, a worker's ``g_i`` is ``g_i - alpha * (w_i - w_t)``:
    where that has converged, the gradient of the worker's own loss. The server's ``h`` moves by ``-alpha``
    times the cohort's mean way, times the cohort's share of all workers, and the new model is
    ``mean - h / alpha``. All start at zero. ``alpha=0`` is FedAvg, bit for bit.

    Any optimizer will do at the workers, since it is their loss that changes; the paper's is SGD. Each worker
    keeps as much again as the parameters, and so does the server.

    Args:
        alpha: Weight of the regulariser, at least 0. The paper tries 0.001, 0.01, 0.03 and 0.1.
        weighting: ``"uniform"`` as in the paper, or as in `FedAvg`.

    Raises:
        ValueError: ``alpha`` is negative.

    Example:
        >>> FedDyn(alpha=0.1).weight(600)
        1
    """

    alpha: float = 0.01
    weighting: Weighting = field(default="uniform", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least("alpha", self.alpha, 0)

    @override
    def why_not(self, job: Job) -> Iterator[str]:
        if job.update == "sequential":
            yield "FedDyn corrects workers that are averaged. Use update='averaged', or another algorithm."

    @override
    def begin(self, parameters: Sequence[Tensor]) -> ServerState:
        return {"h": [torch.zeros_like(parameter) for parameter in parameters]}

    @override
    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        return DynamicTraining(self.alpha) if self.alpha else None

    @override
    @torch.no_grad()
    def finish(self, state: ServerState, collected: Collected) -> tuple[Sequence[Tensor], ServerState]:
        if not self.alpha:
            return collected.mean, state
        share = self.alpha * collected.cohort / collected.workers
        mean, h = list(collected.mean), list(state["h"])
        for position in collected.trained:
            h[position] = h[position] - share * (mean[position] - collected.start[position])
            mean[position] = mean[position] - h[position] / self.alpha
        return mean, {"h": h}


@record
@dataclass(frozen=True)
class DynamicTraining(LocalProcedure):
    """Train with the regulariser, and move the worker's part of it.

    Args:
        alpha: Weight of the regulariser.
    """

    alpha: float

    @override
    def run(self, local: LocalTraining) -> None:
        start = local.copy_parameters()
        own = local.kept("gradient") or [torch.zeros_like(parameter) for parameter in start]

        def regularise(positions: Sequence[int], gradients: Sequence[Tensor]) -> None:
            for position, gradient in zip(positions, gradients, strict=True):
                gradient.sub_(own[position])
                gradient.add_(local.parameters[position] - start[position], alpha=self.alpha)

        local.train(correct=regularise)
        with torch.no_grad():
            for position in local.trained:
                own[position] = own[position] - self.alpha * (local.parameters[position] - start[position])
        local.keep("gradient", own)
