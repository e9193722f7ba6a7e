"""Checks of what arguments must have in common, for kernels of torch that do not look themselves.

Each was found by giving the kernel arguments that do not fit: it then reached past a tensor's memory, handed
out memory as it was, ended the process, or never came back. No check reads a value, which may be private.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

Check: TypeAlias = Callable[..., None]


def require(fits: bool, what: str) -> None:
    """Refuse arguments that do not fit.

    Args:
        fits: Whether they do.
        what: What does not fit each other.

    Raises:
        ValueError: They do not fit.
    """
    if not fits:
        raise ValueError(f"{what} do not fit each other: see torch's documentation for their shapes")


def _per_channel(input: Tensor, *others: Any, **named: Any) -> None:
    tensors = [value for value in (*others, *named.values()) if isinstance(value, Tensor)]
    channels = input.size(1)
    fits = all(tensor.numel() == channels for tensor in tensors)
    require(fits and input.numel() > 0, "channels and statistics")


def _batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    *settings: Any,
    **named: Any,
) -> None:
    require(training or (running_mean is not None and running_var is not None), "mode and statistics")
    _per_channel(input, weight, bias, running_mean, running_var)


def _batch_norm_legit(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, *others: Any, **named: Any
) -> None:
    training = named.get("training", next((value for value in others if isinstance(value, bool)), True))
    running = [value for value in (*others, *named.values()) if isinstance(value, Tensor)]
    # One of its forms has no running statistics, and can only take those of the input.
    require(training or len(running) >= 2, "mode and statistics")
    _per_channel(input, weight, bias, *running[:2])


def _batch_norm_backward(
    grad_out: Tensor,
    input: Tensor,
    weight: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    save_mean: Tensor | None,
    save_invstd: Tensor | None,
    train: bool,
    *settings: Any,
    **named: Any,
) -> None:
    require(grad_out.shape == input.shape, "gradient and input")
    read = (save_mean, save_invstd) if train else (running_mean, running_var)
    require(all(isinstance(statistic, Tensor) for statistic in read), "mode and statistics")
    _per_channel(input, weight, *read)


def _layer_norm_backward(
    grad_out: Tensor, input: Tensor, normalized_shape: Any, mean: Tensor, rstd: Tensor, *others: Any
) -> None:
    rows = input.shape[: input.dim() - len(normalized_shape)].numel()
    require(grad_out.shape == input.shape and mean.numel() == rstd.numel() == rows, "input and statistics")


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> None:
    fits = g.numel() == (1 if dim == -1 else v.size(dim))
    require(fits and v.numel() > 0, "direction and magnitude")


def _chunk_cat(tensors: Any, dim: int, *settings: Any, **named: Any) -> None:
    require(all(tensor.dim() > 0 for tensor in tensors), "tensors and dimension")


def _cdist_backward(grad: Tensor, x1: Tensor, x2: Tensor, p: float, cdist: Tensor) -> None:
    shape = (*x1.shape[:-1], x2.size(-2))
    same = x1.shape[:-2] == x2.shape[:-2] and x1.size(-1) == x2.size(-1)
    require(same and grad.shape == cdist.shape == shape, "points and distances")


def _recurrent(*args: Any, **named: Any) -> None:
    # Of input or data, states and parameters; then settings, of which four are needed here.
    lists = [position for position, value in enumerate(args) if isinstance(value, (list, tuple))]
    require(
        bool(lists) and len(args) > lists[-1] + 5, "parameters and settings, which must be given by position,"
    )
    parameters, biases, layers, _, _, both_ways = args[lists[-1] : lists[-1] + 6]
    cells = layers * (2 if both_ways else 1)
    per_cell = (4, 5) if biases else (2, 3)  # the odd one is a projection
    require(layers > 0 and len(parameters) in [cells * count for count in per_cell], "layers and parameters")


def _unfold_backward(grad: Tensor, input_sizes: Any, dim: int, size: int, step: int) -> None:
    shape = list(input_sizes)
    shape[dim] = (shape[dim] - size) // step + 1
    require(list(grad.shape) == [*shape, size], "gradient and windows")


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
    require(same and heads and logsumexp.numel() == query.shape[:-1].numel(), "queries, keys and values")


def _grid_sampler(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> None:
    # Other numbers than these are no mode, and the kernel then computes nothing.
    modes = (0, 1, 2) if input.dim() == 4 else (0, 1)
    require(interpolation_mode in modes and padding_mode in (0, 1, 2), "modes and dimensions")


def _log_softmax_backward(grad: Tensor, output: Tensor, *settings: Any, **named: Any) -> None:
    require(grad.shape == output.shape and grad.numel() > 0, "gradient and result")


def _binary_cross_entropy_backward(
    grad: Tensor, input: Tensor, target: Tensor, *others: Any, **named: Any
) -> None:
    require(target.shape == input.shape, "input and target")


def _nll_loss2d_backward(
    grad: Tensor, input: Tensor, target: Tensor, weight: Tensor | None, *others: Any, **named: Any
) -> None:
    images, classes, *pixels = input.shape
    weighted = weight is None or weight.numel() == classes
    require(
        list(target.shape) == [images, *pixels] and classes > 0 and weighted, "scores, targets and weights"
    )


def _lu_unpack(*given: Any, **named: Any) -> None:
    # Two of these names torch writes in capitals.
    values = [*given, *(named[name] for name in ("LU_data", "LU_pivots") if name in named)]
    factors, pivots = values[:2]
    *batch, rows, columns = factors.shape
    require(list(pivots.shape) == [*batch, min(rows, columns)], "factors and pivots")


def _avg_pool_backward(grad: Tensor, input: Tensor, *settings: Any, **named: Any) -> None:
    require(grad.shape[:-2] == input.shape[:-2], "gradient and input")


def _max_pool_backward(grad: Tensor, input: Tensor, *others: Any) -> None:
    require(grad.shape == others[-1].shape and grad.shape[:-2] == input.shape[:-2], "gradient and positions")


def _matrix_power(*given: Any, **named: Any) -> None:
    # Of the lowest number there is no opposite, and torch goes round for ever.
    lowest = -(2**63)
    require(
        lowest not in [value for value in (*given, *named.values()) if type(value) is int],
        "exponents and integers",
    )


def _lists_of_one_shape(count: int) -> Check:
    """Make the check of a fused optimizer, of which so many lists go by the parameters."""

    def check(*lists: Any, **settings: Any) -> None:
        require(len(lists) >= count, "the lists of a fused optimizer, which must be given by position,")
        parameters = lists[0]
        for one in filter(None, lists[1:count]):
            require(
                len(one) == len(parameters)
                and all(tensor.shape == p.shape for tensor, p in zip(one, parameters, strict=True)),
                "parameters and their gradients and states",
            )

    return check


CHECKS: dict[str, Check] = {
    "_batch_norm_with_update": _per_channel,
    "_cdist_backward": _cdist_backward,
    "_chunk_cat": _chunk_cat,
    "_fused_adagrad_": _lists_of_one_shape(3),
    "_fused_adam_": _lists_of_one_shape(5),
    "_fused_adamw_": _lists_of_one_shape(5),
    "_fused_sgd_": _lists_of_one_shape(3),
    "_log_softmax_backward_data": _log_softmax_backward,
    "_native_batch_norm_legit": _batch_norm_legit,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    "_weight_norm": _weight_norm,
    "avg_pool2d_backward": _avg_pool_backward,
    "batch_norm_update_stats": _per_channel,
    "binary_cross_entropy_backward": _binary_cross_entropy_backward,
    "grid_sampler": _grid_sampler,
    "grid_sampler_2d": _grid_sampler,
    "grid_sampler_3d": _grid_sampler,
    "gru": _recurrent,
    "lstm": _recurrent,
    "lu_unpack": _lu_unpack,
    "max_pool2d_with_indices_backward": _max_pool_backward,
    "matrix_power": _matrix_power,
    "native_batch_norm": _batch_norm,
    "native_batch_norm_backward": _batch_norm_backward,
    "native_layer_norm_backward": _layer_norm_backward,
    "nll_loss2d_backward": _nll_loss2d_backward,
    "rnn_relu": _recurrent,
    "rnn_tanh": _recurrent,
    "unfold_backward": _unfold_backward,
}
"""By the name of the kernel, wherever it is found."""
