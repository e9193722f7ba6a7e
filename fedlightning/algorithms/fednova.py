"""FedNova: workers that take more steps than others do not pull the average further their way.

Wang et al. 2020, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
section 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer
from typing_extensions import override

from fedlightning.algorithms.algorithm import Algorithm, Collected, Job, ServerState
from fedlightning.algorithms.numbers import require_at_least
from fedlightning.algorithms.plan import Plan
from fedlightning.local.procedure import LocalProcedure, LocalTraining
from fedlightning.workers.remote import record


@dataclass(frozen=True)
class FedNova(Algorithm):
    """Average the workers' directions ``d_i``, each as long as one step, and go ``tau_eff`` steps that way.

    A worker's way is ``-eta * |a_i| * d_i``, where ``a_i`` says how much each of its gradients counts in the
    end: once for plain SGD, more for the early ones under momentum, less under a proximal term. The new
    model is ``w - tau_eff * eta * sum_i p_i * d_i`` with ``tau_eff = sum_i p_i * |a_i|``. Where all take as
    many steps, this is FedAvg (with ``mu``, FedProx), bit for bit where a batch is a step of each optimizer.

    Each parameter has an ``|a_i|`` of its own, since several optimizers may step them differently.

    Args:
        mu: Weight of a proximal term as in `FedProx`, at least 0.
        weighting: As in `FedAvg`.

    Raises:
        ValueError: ``mu`` is negative.

    Example:
        >>> FedNova().weight(600)
        600
    """

    mu: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least("mu", self.mu, 0)

    @override
    def why_not(self, job: Job) -> Iterator[str]:
        if job.update == "sequential":
            yield "FedNova weighs what is averaged. Use update='averaged', or another algorithm."
        for optimizer in job.optimizers:
            yield from self._why_not_by(optimizer, job)
        stepped = [tensor for o in job.optimizers for group in o.param_groups for tensor in group["params"]]
        if len({id(tensor) for tensor in stepped}) < len(stepped):
            yield (
                "FedNova must know how much each gradient counts, and a parameter is stepped by two "
                "optimizers. Give every parameter to one of them, or use another algorithm."
            )

    def _why_not_by(self, optimizer: Optimizer, job: Job) -> Iterator[str]:
        if type(optimizer) is not SGD:
            yield (
                f"FedNova must know how much each gradient counts in the end, which is known of SGD and not "
                f"of {type(optimizer).__name__}. Use torch.optim.SGD(...) in configure_optimizers, and "
                f"{type(optimizer).__name__} as server_optimizer."
            )
            return
        has_momentum = any(group["momentum"] for group in optimizer.param_groups)
        if has_momentum and self.mu:
            yield (
                "FedNova knows how much a gradient counts under momentum or under a proximal term, and not "
                "under both. Use momentum=0 or mu=0."
            )
        if has_momentum and job.optimizer_state == "keep":
            yield (
                "FedNova counts the gradients of a visit, and under optimizer_state='keep' momentum brings "
                "earlier ones along. Use optimizer_state='reset'."
            )
        if any(float(group["lr"]) * self.mu >= 1 for group in optimizer.param_groups):
            yield (
                f"a proximal term of mu={self.mu} overshoots the global model at this learning rate: "
                "lr * mu must be less than 1. Use a smaller one of the two."
            )

    @override
    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        longest = max((assignment.steps for assignment in plan.assignments), default=1)
        return NormalisedTraining(self.mu, longest)

    @override
    @torch.no_grad()
    def finish(self, state: ServerState, collected: Collected) -> tuple[Sequence[Tensor], ServerState]:
        (effective,), (longest,) = collected.extras["reach"], collected.extras["longest"]
        mean = list(collected.mean)
        for position in collected.trained:
            steps = float(effective[position]), float(longest[position])
            mean[position] = _stretched(collected.start[position], mean[position], *steps)
        return mean, state


@record
@dataclass(frozen=True)
class NormalisedTraining(LocalProcedure):
    """Train, then go as far as the round's longest visit would have gone, in the same direction.

    Args:
        mu: Weight of the proximal term.
        longest: Batches of the round's longest visit. Any number common to all workers would do; with this
            one, visits of equal length are left as they are, to the bit.
    """

    mu: float
    longest: int

    sends: ClassVar[bool] = True

    @override
    def run(self, local: LocalTraining) -> None:
        start = local.copy_parameters()
        groups = local.groups
        reaches = [Reach(groups.get(position), self.mu) for position in range(len(start))]
        steps = ceil(self.longest / local.accumulated)
        longest = [reach.of(steps) for reach in reaches]

        def count_and_pull_back(positions: Sequence[int], gradients: Sequence[Tensor]) -> None:
            for position, gradient in zip(positions, gradients, strict=True):
                reaches[position].step()
                if self.mu:
                    gradient.add_(local.parameters[position] - start[position], alpha=self.mu)

        local.train(correct=count_and_pull_back)
        with torch.no_grad():
            for position in local.trained:
                end, own = local.parameters[position], reaches[position].gone
                end.copy_(_stretched(start[position], end, longest[position], own))
        local.sent["reach"] = [torch.tensor([reach.gone for reach in reaches], dtype=torch.float64)]
        local.sent["longest"] = [torch.tensor(longest, dtype=torch.float64)]


class Reach:
    """How far SGD would have taken a parameter had every gradient been one: ``eta * |a_i|``.

    Args:
        group: The parameter's group, with the optimizer's settings as they are at each step; ``None`` for a
            parameter that no optimizer has.
        mu: Weight of the proximal term.

    Attributes:
        gone: How far, after the steps so far.

    Example:
        >>> reach = Reach({"lr": 0.5, "momentum": 0.0}, mu=0.0)
        >>> reach.step()
        >>> reach.gone, reach.of(3)
        (0.5, 1.5)
    """

    def __init__(self, group: Mapping[str, Any] | None, mu: float) -> None:
        self._group = group
        self._mu = mu
        self._velocity: float | None = None
        self.gone = 0.0

    def step(self) -> None:
        """Take a step of the optimizer along a gradient of one."""
        if self._group is None:
            return
        push, momentum = 1 - self._mu * self.gone, self._group["momentum"]
        if momentum:
            before = self._velocity
            fresh = push if before is None else (1 - self._group["dampening"]) * push
            self._velocity = momentum * (before or 0.0) + fresh
            push = push + momentum * self._velocity if self._group["nesterov"] else self._velocity
        self.gone += float(self._group["lr"]) * push

    def of(self, steps: int) -> float:
        """Return how far some steps from the start would go by the settings of now."""
        other = Reach(self._group, self._mu)
        for _ in range(steps):
            other.step()
        return other.gone


def _stretched(start: Tensor, end: Tensor, wanted: float, own: float) -> Tensor:
    """Return where a way ends that is as long as wanted; a way of the right length, or of none, is left."""
    return end if own in (0, wanted) else start + (end - start) * (wanted / own)
