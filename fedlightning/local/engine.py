"""Gradients straight from autograd's engine, and its mode: the one use of its private entries.

`torch.autograd.grad` and `backward` spend 30 us per call on looking at what they are given and on logging, as
much as the backward of a small module. What they would refuse is left to them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.variable import Variable

Gradients = Sequence[Tensor | None]


def gradients_of(loss: Tensor, tensors: Sequence[Tensor]) -> Gradients:
    """Compute what `torch.autograd.grad` would with ``allow_unused=True``; the graph is freed.

    Args:
        loss: Shape ``()``.
        tensors: Leaves that require a gradient.

    Returns:
        A gradient per tensor; ``None`` where the loss does not depend on it.

    Raises:
        RuntimeError: As `torch.autograd.grad`, if the loss has no graph or is no single number.
    """
    if not tensors or not _is_plain(loss):
        return torch.autograd.grad(loss, tensors, allow_unused=True)
    return _run((loss,), (_one_like(loss),), False, False, tuple(tensors), True, accumulate_grad=False)


def backward(loss: Tensor) -> None:
    """Do what `torch.autograd.backward` does: add to the gradients of the leaves, and free the graph.

    Args:
        loss: Shape ``()``.

    Raises:
        RuntimeError: As `torch.autograd.backward`, if the loss has no graph or is no single number.
    """
    if not _is_plain(loss):
        return torch.autograd.backward(loss)
    _run((loss,), (_one_like(loss),), False, False, (), True, accumulate_grad=True)
    return None


class GradModeOff:
    """Do what `torch.no_grad` does for a block, at less than half its price: each step enters one."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        """Turn it off."""
        self._before = torch.is_grad_enabled()
        _set_grad_mode(False)

    def __exit__(self, *_: object) -> None:
        """Leave it as it was."""
        _set_grad_mode(self._before)


def _is_plain(loss: Tensor) -> bool:
    return type(loss) is Tensor and loss.dim() == 0 and loss.grad_fn is not None and loss.is_floating_point()


def _one_like(loss: Tensor) -> Tensor:
    """Return the gradient of a loss by itself, the same tensor for many losses."""
    kind = loss.dtype, loss.device
    one = _ones.get(kind)
    # A hook of the user's may have written to it.
    if one is None or one._version:
        one = _ones[kind] = torch.ones_like(loss)
    return one


_ones: dict[tuple[torch.dtype, torch.device], Tensor] = {}
_run = Variable._execution_engine.run_backward
_set_grad_mode = torch._C._set_grad_enabled
