"""FedBN: normalisation layers stay at each worker (Li et al. 2021, "FedBN", Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from fedlightning.algorithms.algorithm import Algorithm, ServerState
from fedlightning.algorithms.fedper import PersonalTraining
from fedlightning.algorithms.plan import Plan
from fedlightning.local.procedure import LocalModel, LocalProcedure, LocalTraining
from fedlightning.workers.remote import record


@dataclass(frozen=True)
class FedBN(Algorithm):
    """Keep every normalisation layer, parameters and statistics, at each worker, and average the rest.

    For workers whose inputs differ in kind, such as scanners. Without such layers it is FedAvg.

    Args:
        weighting: As in `FedAvg`.

    Example:
        >>> FedBN()
        FedBN(weighting='samples', buffers='average')
    """

    @override
    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        return OwnNormLayers()

    @override
    def evaluation(self, state: ServerState) -> LocalProcedure | None:
        return OwnNormLayers()


@record
@dataclass(frozen=True)
class OwnNormLayers(LocalProcedure):
    """Train with the worker's own normalisation layers, which the module tells."""

    @override
    def run(self, local: LocalTraining) -> None:
        PersonalTraining(tuple(local.norm_layers())).run(local)

    @override
    def personalise(self, local: LocalModel) -> None:
        PersonalTraining(tuple(local.norm_layers())).personalise(local)
