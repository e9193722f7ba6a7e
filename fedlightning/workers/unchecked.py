"""Kernels that trust their arguments, and reach past a tensor's memory where these do not fit: checked first.

What lies beside a tensor in memory may be anybody's. torch checks nearly all of its arguments; these kernels
were found by giving it some that do not fit. No check reads a value, which may be private: positions are
clamped instead, in `within_bounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeAlias

from torch import Tensor

from fedlightning.pointers.operations import Operation

Check: TypeAlias = Callable[..., None]

# For hardware and number formats that pointers do not serve; some hand out memory as it was left.
_NOT_OFFERED = ("fbgemm_", "miopen_", "cudnn_", "quantized_")


def checked(operations: Mapping[str, Operation]) -> dict[str, Operation]:
    """Put checks before the kernels that need them, and leave out those for other number formats.

    Args:
        operations: What a worker runs, by name.

    Returns:
        The same, safe against arguments that do not fit each other.
    """
    return {
        name: _guarded(name, function)
        for name, function in operations.items()
        if not name.rpartition(".")[2].startswith(_NOT_OFFERED)
    }


def _guarded(name: str, function: Operation) -> Operation:
    short = name.rpartition(".")[2]
    if short in _REPLACED:
        return _REPLACED[short](function)
    return _after(_CHECKS[short], function) if short in _CHECKS else function


def _after(check: Check, function: Operation) -> Operation:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        check(*args, **kwargs)
        return function(*args, **kwargs)

    return run


def _require(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(f"{what} do not fit each other: see torch's documentation for their shapes")


def _per_channel(input: Tensor, *others: Any, **named: Any) -> None:
    tensors = [value for value in (*others, *named.values()) if isinstance(value, Tensor)]
    channels = input.size(1)
    _require(all(tensor.numel() in (0, channels) for tensor in tensors), "channels and statistics")


def _batch_norm_backward(grad_out: Tensor, input: Tensor, *others: Any, **named: Any) -> None:
    _require(grad_out.shape == input.shape, "gradient and input")
    _per_channel(input, *others, **named)


def _layer_norm_backward(
    grad_out: Tensor, input: Tensor, normalized_shape: Any, mean: Tensor, rstd: Tensor, *others: Any
) -> None:
    rows = input.shape[: input.dim() - len(normalized_shape)].numel()
    _require(grad_out.shape == input.shape and mean.numel() == rstd.numel() == rows, "input and statistics")


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> None:
    _require(g.numel() == (1 if dim == -1 else v.size(dim)), "direction and magnitude")


def _cdist_backward(grad: Tensor, x1: Tensor, x2: Tensor, p: float, cdist: Tensor) -> None:
    shape = (*x1.shape[:-1], x2.size(-2))
    same = x1.shape[:-2] == x2.shape[:-2] and x1.size(-1) == x2.size(-1)
    _require(same and grad.shape == cdist.shape == shape, "points and distances")


def _unfold_backward(grad: Tensor, input_sizes: Any, dim: int, size: int, step: int) -> None:
    shape = list(input_sizes)
    shape[dim] = (shape[dim] - size) // step + 1
    _require(list(grad.shape) == [*shape, size], "gradient and windows")


def _attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    *others: Any,
    **named: Any,
) -> None:
    same = grad.shape == out.shape == query.shape and key.shape == value.shape
    heads = key.shape[:-2] == query.shape[:-2] and key.size(-1) == query.size(-1)
    _require(same and heads and logsumexp.numel() == query.shape[:-1].numel(), "queries, keys and values")


def _max_pool_backward(grad: Tensor, input: Tensor, *others: Any) -> None:
    _require(grad.shape == others[-1].shape and grad.shape[:-2] == input.shape[:-2], "gradient and positions")


def _lists_of_one_shape(count: int) -> Check:
    """Make the check of a fused optimizer, of which so many lists go by the parameters."""

    def check(*lists: Any, **settings: Any) -> None:
        _require(len(lists) >= count, "the lists of a fused optimizer, which must be given by position,")
        parameters = lists[0]
        for one in filter(None, lists[1:count]):
            _require(
                len(one) == len(parameters)
                and all(tensor.shape == p.shape for tensor, p in zip(one, parameters, strict=True)),
                "parameters and their gradients and states",
            )

    return check


_CHECKS: dict[str, Check] = {
    "_batch_norm_with_update": _per_channel,
    "_cdist_backward": _cdist_backward,
    "_fused_adagrad_": _lists_of_one_shape(3),
    "_fused_adam_": _lists_of_one_shape(5),
    "_fused_adamw_": _lists_of_one_shape(5),
    "_fused_sgd_": _lists_of_one_shape(3),
    "_native_batch_norm_legit": _per_channel,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    "_weight_norm": _weight_norm,
    "batch_norm_update_stats": _per_channel,
    "max_pool2d_with_indices_backward": _max_pool_backward,
    "native_batch_norm": _per_channel,
    "native_batch_norm_backward": _batch_norm_backward,
    "native_layer_norm_backward": _layer_norm_backward,
    "unfold_backward": _unfold_backward,
}


def _with_segments_there_are(function: Operation) -> Operation:
    def segment_reduce(data: Tensor, reduce: str, *, axis: int = 0, **named: Any) -> Any:
        if named.get("offsets") is not None:
            # torch checks lengths if it is not told otherwise, and offsets never.
            named["offsets"] = named["offsets"].clamp(0, data.size(axis))
        return function(data, reduce, **(named | {"axis": axis, "unsafe": False}))

    return segment_reduce


_REPLACED: dict[str, Callable[[Operation], Operation]] = {
    "segment_reduce": _with_segments_there_are,
}
