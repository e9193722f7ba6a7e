"""Operations whose kernels trust sizes and values that they are given: here these stay within the memory.

Found by attack: a message could make torch read or write beyond a tensor, where other people's data lies.
Positions are clamped, not checked: a check would tell something of private values. Shapes and settings, which
are no secret, are checked in `kernel_checks`.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
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
        if indices.numel() and not (count and rows):
            raise ValueError(f"{indices.numel()} indices lead nowhere among {rows} rows in {count} bags")
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


def _embedding_bag(function: Operation) -> Operation:
    def embedding_bag(weight: Tensor, indices: Tensor, offsets: Tensor, *settings: Any, **named: Any) -> Any:
        # scale_grad_by_freq, mode, sparse, per_sample_weights come before include_last_offset.
        last = settings[4] if len(settings) > 4 else named.get("include_last_offset", False)
        return function(weight, indices, _offsets(offsets, indices.numel(), last), *settings, **named)

    return embedding_bag


def _functional_embedding_bag(function: Operation) -> Operation:
    parameters = signature(function)

    def embedding_bag(*args: Any, **kwargs: Any) -> Any:
        given = parameters.bind(*args, **kwargs).arguments
        if given.get("offsets") is not None:
            last = given.get("include_last_offset", False)
            given["offsets"] = _offsets(given["offsets"], given["input"].numel(), last)
        return function(**given)

    return embedding_bag


def _offsets(offsets: Tensor, count: int, include_last: bool) -> Tensor:
    """Let bags lie one behind the other and hold all that there is: what belongs to none has no gradient."""
    if handle_of(offsets) is not None or offsets.dim() != 1:
        return offsets
    if count and len(offsets) < 1 + include_last:
        raise ValueError(f"offsets of {len(offsets)} bags are too few for {count} indices")
    kept = offsets.clamp(0, count).cummax(0).values
    kept[:1] = 0
    if include_last:
        kept[-1:] = count
    return kept


def _embedding_dense_backward(function: Operation) -> Operation:
    def backward(gradient: Tensor, indices: Tensor, rows: int, *settings: Any) -> Any:
        if indices.numel() and rows < 1:
            raise ValueError(f"{indices.numel()} indices lead nowhere among {rows} rows")
        return function(gradient, _positions(indices, rows), rows, *settings)

    return backward


def _nll_loss2d_backward(function: Operation) -> Operation:
    def backward(
        gradient: Tensor,
        inputs: Tensor,
        targets: Tensor,
        weight: Tensor | None,
        reduction: int,
        ignore_index: int,
        total_weight: Tensor,
    ) -> Any:
        within = _positions(targets, inputs.shape[1])
        kept = torch.where(targets == ignore_index, targets, within)
        return function(gradient, inputs, kept, weight, reduction, ignore_index, total_weight)

    return backward


def _ldl_solve(function: Operation) -> Operation:
    def solve(factors: Tensor, pivots: Tensor, *args: Any, **kwargs: Any) -> Any:
        kept = pivots if handle_of(pivots) is not None else _paired(pivots, factors.shape[-1])
        return function(factors, kept, *args, **kwargs)

    return solve


def _paired(pivots: Tensor, rows: int) -> Tensor:
    """Let pivots name rows that there are, and the negative ones, of two-by-two blocks, come in pairs."""
    if pivots.dim() == 0 or pivots.numel() == 0:
        return pivots
    negative, paired = [], torch.zeros_like(pivots[..., 0], dtype=torch.bool)
    for position, column in enumerate(pivots.unbind(-1)):
        begins = (column < 0) & ~paired & (position + 1 < pivots.shape[-1])
        negative.append(begins | paired)
        paired = begins
    sizes = pivots.abs().clamp(1, max(rows, 1))
    return torch.where(torch.stack(negative, -1), -sizes, sizes)


def _eigvals(function: Operation) -> Operation:
    def eigvals(matrix: Tensor, **kwargs: Any) -> Tensor:
        # LAPACK does not come back from what is not finite; `eig` refuses it, which would tell of values.
        finite = matrix.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
        values: Tensor = function(torch.where(finite, matrix, 0), **kwargs)
        fill = Tensor.masked_fill if kwargs.get("out") is None else Tensor.masked_fill_
        return fill(values, ~finite[..., 0], torch.nan)

    return eigvals


def _segment_reduce(function: Operation) -> Operation:
    def segment_reduce(
        data: Tensor, reduce: str, *, axis: int = 0, unsafe: bool = False, **named: Any
    ) -> Any:
        # torch checks lengths if it is not told otherwise, and offsets never.
        if named.get("offsets") is not None:
            named["offsets"] = named["offsets"].clamp(0, data.size(axis))
        if unsafe and named.get("lengths") is not None:
            named["lengths"] = _lengths_within(named["lengths"], data.size(axis))
        return function(data, reduce, axis=axis, unsafe=unsafe, **named)

    return segment_reduce


def _lengths_within(lengths: Tensor, size: int) -> Tensor:
    """Cut segments off where the data ends; those that fit stay as they are."""
    ends = lengths.clamp(0, size).cumsum(-1).clamp_max(size)
    return ends.diff(dim=-1, prepend=ends.new_zeros((*ends.shape[:-1], 1))).to(lengths.dtype)


def _positions(values: Any, count: int) -> Any:
    # Behind a pointer, another worker sees to it.
    if not isinstance(values, Tensor) or handle_of(values) is not None:
        return values
    return values.clamp(0, max(count - 1, 0))


_BOUNDED: dict[str, Callable[[Operation], Operation]] = {
    "torch.ops.aten._reshape_alias": _reshape_alias,
    "torch.ops.aten.max_pool2d_with_indices_backward": _max_pool_backward,
    "torch.ops.aten._embedding_bag_backward": _embedding_bag_backward,
    "torch.ops.aten.embedding_dense_backward": _embedding_dense_backward,
    "torch.ops.aten.nll_loss2d_backward": _nll_loss2d_backward,
    "torch.ctc_loss": _ctc_loss,
    "torch.embedding_bag": _embedding_bag,
    "torch.linalg.eigvals": _eigvals,
    "torch.linalg.ldl_solve": _ldl_solve,
    "torch.nn.functional.embedding_bag": _functional_embedding_bag,
    "torch.segment_reduce": _segment_reduce,
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
