"""FedRep: first each worker's head, then the shared body.

Collins et al. 2021, "Exploiting Shared Representations for Personalized Federated Learning", Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from fedlightning.algorithms.algorithm import ServerState
from fedlightning.algorithms.fedper import FedPer, PersonalTraining
from fedlightning.algorithms.plan import Plan
from fedlightning.local.procedure import LocalProcedure, LocalTraining
from fedlightning.workers.remote import record


@dataclass(frozen=True)
class FedRep(FedPer):
    """Let a visit train the personal head against the body as it came, and then the body against that head.

    Args:
        personal: Names of the head's parts, as in `FedPer`.
        head_share: Share of a visit's steps that train the head, between 0 and 1; the rest train the body.
        weighting: As in `FedAvg`.

    Raises:
        ValueError: ``head_share`` is no share.

    Example:
        >>> FedRep(personal=["head"], head_share=0.75).head_share
        0.75
    """

    head_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.head_share <= 1:
            raise ValueError(f"head_share must be between 0 and 1, got {self.head_share!r}.")

    @override
    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        return HeadThenBody(self.personal, self.head_share) if self.personal else None


@record
@dataclass(frozen=True)
class HeadThenBody(PersonalTraining):
    """Train the personal part first, then the rest.

    Args:
        personal: Which part.
        head_share: Share of the steps that train it.
    """

    head_share: float

    @override
    def train(self, local: LocalTraining) -> None:
        head = local.positions(self.personal)
        body = set(range(len(local.parameters))) - head
        steps = round(self.head_share * local.length)
        if steps:
            local.train_only(head, steps=steps)
        if steps < local.length:
            local.train_only(body, first=steps)
