"""Operations whose kernels trust sizes and positions that they are given: here these stay within the memory.

Found by attack: a message could make torch read or write beyond a tensor, where other people's data lies.
Positions are clamped, not checked: a check would tell something of private values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fedlightning.pointers.arguments import handle_of

Operation = Callable[..., Any]


def _reshape_alias(function: Operation) -> Operation:
    def alias(tensor: Tensor, size: Any, stride: Any) -> Tensor:
        # The same view, of which torch makes sure that there is memory for it.
        return torch.as_strided(tensor, size, stride, tensor.storage_offset())

    return alias


def _max_pool_backward(function: Operation) -> Operation:
    def backward(gradient: Tensor, inputs: Tensor, *args: Any) -> Any:
        *settings, indices = args
        height, width = inputs.shape[-2:]
        return function(gradient, inputs, *settings, _positions(indices, height * width))

    return backward


def _embedding_bag_backward(function: Operation) -> Operation:
    def backward(
        gradient: Tensor,
        indices: Tensor,
        offsets: Tensor,
        bags: Tensor,
        sizes: Tensor,
        largest: Tensor,
        rows: int,
        *settings: Any,
    ) -> Any:
        count = gradient.shape[0]
        if bags.shape != indices.shape or len(sizes) < count or len(offsets) < count:
            raise ValueError(
                f"bags of shape {tuple(bags.shape)} do not fit indices of {tuple(indices.shape)}"
            )
        kept = _positions(indices, rows), offsets, _positions(bags, count), sizes, _positions(largest, rows)
        return function(gradient, *kept, rows, *settings)

    return backward


def _ctc_loss(function: Operation) -> Operation:
    def loss(log_probs: Tensor, targets: Tensor, *args: Any, **kwargs: Any) -> Any:
        return function(log_probs, _positions(targets, log_probs.shape[-1]), *args, **kwargs)

    return loss


def _positions(values: Any, count: int) -> Any:
    # Behind a pointer, another worker sees to it.
    if not isinstance(values, Tensor) or handle_of(values) is not None:
        return values
    return values.clamp(0, max(count - 1, 0))


_BOUNDED: dict[str, Callable[[Operation], Operation]] = {
    "torch.ops.aten._reshape_alias": _reshape_alias,
    "torch.ops.aten.max_pool2d_with_indices_backward": _max_pool_backward,
    "torch.ops.aten._embedding_bag_backward": _embedding_bag_backward,
    "torch.ctc_loss": _ctc_loss,
    "torch.nn.functional.ctc_loss": _ctc_loss,
}


def within_bounds(operations: dict[str, Operation]) -> dict[str, Operation]:
    """Keep what operations read and write within the memory of their tensors.

    Args:
        operations: By name.

    Returns:
        The same, with those guarded whose kernels do not look.
    """
    guarded = {name: make(operations[name]) for name, make in _BOUNDED.items() if name in operations}
    return {**operations, **guarded}
