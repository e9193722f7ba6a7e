"""Gradients on a visit's batches, without a step along them: nothing of the visit notices.

They are what steps of the optimizer would have used, after clipping and unscaling.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from fedlightning.local.procedure import LocalTraining

Gradients = dict[int, Tensor]
"""Those of one step, by the position of their parameter."""


def gradients_aside(local: LocalTraining, *, first: int = 0, steps: int | None = None) -> list[Gradients]:
    """Return the gradients of each step that batches of the visit would make, at the parameters of now.

    Random numbers are left where they are, so that training on the same batches draws the same ones again.

    Args:
        local: What a procedure that ``revisits`` its batches has found at a worker.
        first: Number of the first batch within the visit.
        steps: How many batches; ``None`` for all that follow.
    """
    taken: list[Gradients] = []

    def take(positions: Sequence[int], gradients: Sequence[Tensor]) -> None:
        taken.append({p: gradient.clone() for p, gradient in zip(positions, gradients, strict=True)})
        for position in positions:
            local.parameters[position].grad = None  # so that the optimizer passes over it

    with isolate_rng(), local.aside():
        local.train(take, first=first, steps=steps)
    return taken


@torch.no_grad()
def mean_gradient(local: LocalTraining) -> list[Tensor]:
    """Return the mean of the visit's gradients at the parameters of now, like the parameters.

    Args:
        local: What a procedure that ``revisits`` its batches has found at a worker.
    """
    every = gradients_aside(local)
    mean = [torch.zeros_like(parameter) for parameter in local.parameters]
    for gradients in every:
        for position, gradient in gradients.items():
            mean[position].add_(gradient, alpha=1 / len(every))
    return mean
