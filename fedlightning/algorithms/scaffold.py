"""SCAFFOLD: control variates that take the drift out of local steps.

Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

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
from fedlightning.algorithms.plan import Plan
from fedlightning.local.gradients_aside import mean_gradient
from fedlightning.local.procedure import LocalProcedure, LocalTraining
from fedlightning.workers.remote import record


@dataclass(frozen=True)
class Scaffold(Algorithm):
    """Correct every local gradient by ``c - c_i``, the server's control variate less the worker's own.

    After its ``K`` steps of rate ``eta`` from ``x`` to ``y``, a worker's new control variate is
    ``c_i - c + (x - y) / (K * eta)``: option II of the paper, which costs nothing. By option I it is the
    gradient at ``x`` on the visit's batches, which with ``local_epochs`` are all of a worker's data; that
    costs one more pass over them. The server's moves by the mean change of the cohort's, times the cohort's
    share of all workers. Both start at zero. A server's rate ``eta_g`` other than 1 is a server optimizer:
    ``server_optimizer=partial(torch.optim.SGD, lr=eta_g)``.

    Worker and server keep, and each visit sends both ways, as much again as the parameters.

    Args:
        option: ``"I"`` or ``"II"``.
        controls: ``"updated"``, or ``"zero"`` to leave them at zero: FedAvg, bit for bit, to compare with.
        weighting: ``"uniform"`` as in the paper, or as in `FedAvg`.

    Example:
        >>> Scaffold().weight(600)
        1
    """

    option: Literal["I", "II"] = "II"
    controls: Literal["updated", "zero"] = "updated"
    weighting: Weighting = field(default="uniform", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.option not in ("I", "II"):
            raise ValueError(f"option must be 'I' or 'II', got {self.option!r}.")
        if self.controls not in ("updated", "zero"):
            raise ValueError(f"controls must be 'updated' or 'zero', got {self.controls!r}.")

    @override
    def why_not(self, job: Job) -> Iterator[str]:
        if job.update == "sequential":
            yield "SCAFFOLD corrects workers that are averaged. Use update='averaged', or another algorithm."
        if self.option == "I":
            yield from loss_is_not_told(job, "SCAFFOLD's option I takes gradients without steps")
        for optimizer in job.optimizers:
            groups = optimizer.param_groups
            if type(optimizer) is not SGD or any(group["momentum"] for group in groups):
                yield (
                    f"SCAFFOLD's control variates are defined for SGD without momentum at the workers, and "
                    f"{type(optimizer).__name__} is {_described(optimizer)}. Use torch.optim.SGD(lr=...) in "
                    "configure_optimizers, and momentum at the server."
                )

    @override
    def begin(self, parameters: Sequence[Tensor]) -> ServerState:
        return {"control": [torch.zeros_like(parameter) for parameter in parameters]}

    @override
    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        if self.controls == "zero":
            return None
        return ControlledTraining(list(state["control"]), by_gradient=self.option == "I")

    @override
    @torch.no_grad()
    def finish(self, state: ServerState, collected: Collected) -> tuple[Sequence[Tensor], ServerState]:
        if self.controls == "zero":
            return collected.mean, state
        share = collected.cohort / collected.workers
        changes = collected.extras["control"]
        control = [c + share * change for c, change in zip(state["control"], changes, strict=True)]
        return collected.mean, {"control": control}


@record
@dataclass(frozen=True)
class ControlledTraining(LocalProcedure):
    """Train with corrected gradients, and update the worker's control variate.

    Args:
        control: The server's control variate, like the parameters.
        by_gradient: Whether the worker's becomes the gradient at the start (option I).
    """

    control: list[Tensor]
    by_gradient: bool

    sends: ClassVar[bool] = True

    @property
    @override
    def revisits(self) -> bool:
        return self.by_gradient

    @override
    def run(self, local: LocalTraining) -> None:
        own = local.kept("control") or [torch.zeros_like(c) for c in self.control]
        start = local.copy_parameters()
        gradient = mean_gradient(local) if self.by_gradient else None

        def correct(positions: Sequence[int], gradients: Sequence[Tensor]) -> None:
            for position, gradient in zip(positions, gradients, strict=True):
                gradient.add_(self.control[position] - own[position])

        local.train(correct)
        new = self._updated(own, start, local) if gradient is None else gradient
        local.keep("control", new)
        local.sent["control"] = [after - before for after, before in zip(new, own, strict=True)]

    @torch.no_grad()
    def _updated(self, own: Sequence[Tensor], start: Sequence[Tensor], local: LocalTraining) -> list[Tensor]:
        """Return the worker's new control variate; ``K * eta`` is the sum of its steps' rates."""
        every = zip(own, self.control, start, local.parameters, local.distances, strict=True)
        # What took no step, such as a frozen parameter, has nothing to be corrected.
        return [c_i - c + (x - y) / rates if rates else c_i for c_i, c, x, y, rates in every]


def _described(optimizer: object) -> str:
    return "one with momentum" if type(optimizer) is SGD else "not it"
