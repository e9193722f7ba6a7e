"""IFCA: several global models, of which each worker trains the one that suits it.

Ghosh et al. 2020, "An Efficient Framework for Clustered Federated Learning", Algorithm 1 (model averaging).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.algorithm import Algorithm, Collected, Job, ServerState, loss_is_not_told
from fedlightning.algorithms.plan import Plan
from fedlightning.local.fine_tuning import mean_loss
from fedlightning.local.procedure import LocalModel, LocalProcedure, LocalTraining
from fedlightning.workers.remote import record


@dataclass(frozen=True)
class IFCA(Algorithm):
    """Send all cluster models to every worker, which picks the one of least loss on its data and trains it.

    The global module is the mean of what the round's workers have trained; where data at workers is
    evaluated, each uses the cluster model that it would pick. The first cluster starts as the module is
    initialised; the others with the same numbers within each parameter in another order, which leaves their
    distribution as it was. A visit sends down and up as many models as there are clusters.

    Args:
        clusters: How many; 1 is FedAvg, bit for bit.
        batches: Batches of a worker's training data that decide which model suits it.
        seed: Of the order of the other clusters' initial parameters.
        weighting: As in `FedAvg`.

    Raises:
        ValueError: There is no cluster, or no batch to decide by.

    Example:
        >>> state = IFCA(clusters=2).begin([torch.tensor([1.0, 2.0])])
        >>> [sorted(model[0].tolist()) for model in state.values()]
        [[1.0, 2.0], [1.0, 2.0]]
    """

    clusters: int = 2
    batches: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("clusters", "batches"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")

    @override
    def why_not(self, job: Job) -> Iterator[str]:
        if self.clusters > 1:
            yield from loss_is_not_told(job, "IFCA compares the losses of the cluster models")

    @override
    def begin(self, parameters: Sequence[Tensor]) -> ServerState:
        generator = torch.Generator().manual_seed(self.seed)
        others = range(1, self.clusters)
        models = [[parameter.clone() for parameter in parameters]]
        models += [[_shuffled(parameter, generator) for parameter in parameters] for _ in others]
        return {_name(number): model for number, model in enumerate(models)}

    @override
    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        return ClusterTraining([list(model) for model in state.values()], self.batches)

    @override
    def evaluation(self, state: ServerState) -> LocalProcedure | None:
        return ClusterTraining([list(model) for model in state.values()], self.batches)

    @override
    @torch.no_grad()
    def finish(self, state: ServerState, collected: Collected) -> tuple[Sequence[Tensor], ServerState]:
        (shares,) = collected.extras["shares"]
        models = {}
        for (name, model), share in zip(state.items(), shares.tolist(), strict=True):
            trained = collected.extras[name]
            models[name] = [tensor / share for tensor in trained] if share else list(model)
        return collected.mean, models


@record
@dataclass(frozen=True)
class ClusterTraining(LocalProcedure):
    """Train the cluster model that suits the worker best.

    Args:
        models: Parameters of each cluster's model.
        batches: Batches that decide.
    """

    models: list[list[Tensor]]
    batches: int

    sends: ClassVar[bool] = True

    @override
    def run(self, local: LocalTraining) -> None:
        chosen = self._choose(local)
        local.train()
        shares = torch.zeros(len(self.models), dtype=torch.float64)
        shares[chosen] = 1
        trained = local.copy_parameters()
        for number in range(len(self.models)):
            mine = number == chosen
            local.sent[_name(number)] = trained if mine else [torch.zeros_like(t) for t in trained]
        local.sent["shares"] = [shares]

    @override
    def personalise(self, local: LocalModel) -> None:
        self._choose(local)

    def _choose(self, local: LocalModel) -> int:
        """Put the model that suits the worker best into the module, and return its number."""
        if len(self.models) == 1:
            local.write_parameters(self.models[0])
            return 0
        losses = []
        for model in self.models:
            local.write_parameters(model)
            losses.append(mean_loss(local, batches=self.batches))
        chosen = min(range(len(losses)), key=losses.__getitem__)
        local.write_parameters(self.models[chosen])
        return chosen


def _name(cluster: int) -> str:
    return f"cluster {cluster}"


def _shuffled(tensor: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(tensor.numel(), generator=generator)
    return tensor.flatten()[order.to(tensor.device)].view_as(tensor).clone()
