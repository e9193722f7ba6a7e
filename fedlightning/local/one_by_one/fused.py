"""Steps of SGD with momentum over lists of tensors: by torch's fused kernel, and by single operations.

The one use of that kernel, which is private to torch: nothing public steps with it in memory that is there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

_EVEN = 64


class Momentum(NamedTuple):
    """Settings of SGD with momentum, as torch names them; made for each step, which a dataclass is slow at.

    Args:
        momentum: Share of the last step that is in the next one.
        dampening: Share of the gradient that is not.
        nesterov: Whether the gradient is looked for ahead (Sutskever et al. 2013).
        weight_decay: Factor of the parameters that is added to their gradients.
    """

    momentum: float
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0


def step_by_operations(
    tensors: list[Tensor],
    gradients: list[Tensor],
    buffers: list[Tensor],
    settings: Momentum,
    lr: float,
    *,
    first: bool,
) -> None:
    """Take a step by the operations of torch's own, in their order.

    Args:
        tensors: Parameters, which are stepped.
        gradients: Theirs; not written to.
        buffers: Their momentum, which is brought up to date.
        settings: How.
        lr: Learning rate.
        first: Whether there was no step before, and what is in the buffers has no meaning.
    """
    if settings.weight_decay:
        gradients = list(torch._foreach_add(gradients, tensors, alpha=settings.weight_decay))
    if first:
        torch._foreach_copy_(buffers, gradients)
    else:
        torch._foreach_mul_(buffers, settings.momentum)
        torch._foreach_add_(buffers, gradients, alpha=1 - settings.dampening)
    steps = buffers
    if settings.nesterov:
        steps = list(torch._foreach_add(gradients, buffers, alpha=settings.momentum))
    torch._foreach_add_(tensors, steps, alpha=-lr)


def step_at_once(
    tensors: list[Tensor],
    gradients: list[Tensor],
    buffers: list[Tensor],
    settings: Momentum,
    lr: float,
    *,
    first: bool,
) -> None:
    """Take a step in one pass; as `step_by_operations`."""
    torch._fused_sgd_(
        tensors,
        gradients,
        buffers,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        lr=lr,
        dampening=settings.dampening,
        nesterov=settings.nesterov,
        maximize=False,
        is_first_step=first,
    )


def is_even(tensor: Tensor) -> bool:
    """Tell whether a kernel rounds all numbers of a tensor alike; the last ones of others it does not."""
    return tensor.numel() % _EVEN == 0


def is_exact(settings: Momentum) -> bool:
    """Tell whether `step_at_once` gives the bits of single operations here, for tensors that are even.

    Args:
        settings: How steps are taken.
    """
    # Several threads divide tensors otherwise in one kernel than in the other.
    return torch.get_num_threads() == 1 and _is_exact(settings)


@lru_cache(maxsize=64)
def _is_exact(settings: Momentum) -> bool:
    """Try it: how products and sums are rounded together depends on the processor and on torch's build."""
    return all(_are_alike(settings, dtype) for dtype in (torch.float32, torch.float64))


@torch.no_grad()
def _are_alike(settings: Momentum, dtype: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(6, 32 * _EVEN, generator=generator, dtype=dtype)
    results = []
    for step in (step_by_operations, step_at_once):
        tensor, buffer = numbers[0].clone(), torch.empty_like(numbers[0])
        for count, gradient in enumerate(numbers[1:]):
            step([tensor], [gradient], [buffer], settings, 0.1, first=count == 0)
        results.append((tensor, buffer))
    return all(map(torch.equal, *results))
