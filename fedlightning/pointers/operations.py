"""The allow-list: every operation that a message may name, built from what torch declares overridable.

No name off the wire is looked up with ``getattr``: a sweep of the torch namespace would offer file access and
global settings. What torch declares overridable but pointers refuse is in `refusals`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import get_overridable_functions, resolve_name

from fedlightning.pointers.overridable import MADE_OVERRIDABLE
from fedlightning.pointers.refusals import refused_functions

Operation = Callable[..., Any]

# They make a tensor from no tensor, and run at a worker only when it is known otherwise (see `factories`).
FACTORIES: dict[str, Operation] = {
    f"torch.{name}": getattr(torch, name)
    for name in (
        "arange",
        "bartlett_window",
        "blackman_window",
        "empty",
        "empty_permuted",
        "empty_strided",
        "eye",
        "full",
        "hamming_window",
        "hann_window",
        "kaiser_window",
        "linspace",
        "logspace",
        "normal",
        "ones",
        "rand",
        "randint",
        "randn",
        "randperm",
        "scalar_tensor",
        "tensor",
        "tril_indices",
        "triu_indices",
        "zeros",
    )
}
# The worker's own knowledge of a tensor that a pointer's copy of the metadata lacks; none of it is a value.
METADATA_AT_WORKER = frozenset(
    f"torch.Tensor.{name}"
    for name in (
        "_is_view",
        "_nnz",
        "_version.__get__",
        "dense_dim",
        "is_coalesced",
        "is_conj",
        "is_neg",
        "is_set_to",
        "sparse_dim",
        "type",
    )
) | {"torch.is_conj", "torch.is_neg", "torch.result_type"}
_SETTERS = ("data", "grad", "requires_grad", "real", "imag")


# Overridable, yet missing from torch's own list: found by running its OpInfo database.
_FUNCTIONS_UNLISTED = (
    "_chunk_cat",
    "_log_softmax",
    "_native_batch_norm_legit",
    "_softmax",
    "_unsafe_masked_index",
    "_unsafe_masked_index_put_accumulate",
    "_weight_norm",
    "as_strided",
    "fill",
    "fill_",
    "meshgrid",
    "rand_like",
    "randint_like",
    "randn_like",
    "resize_as_",
    "segment_reduce",
    "vander",
    "zero_",
)
_METHODS_UNLISTED = (
    "new_empty",
    "new_empty_strided",
    "new_full",
    "new_ones",
    "new_tensor",
    "new_zeros",
    "unflatten",
)
_FUNCTIONALS_UNLISTED = ("hardsigmoid", "hardswish")
_INITIALIZERS = ("constant_", "kaiming_uniform_", "normal_", "uniform_")
_SPARSE_UNLISTED = ("mm", "sampled_addmm")
# Met below autograd, by `torch.func` and by the database of operators itself.
_OPERATORS_UNLISTED = (
    "_batch_norm_with_update",
    "_cdist_backward",
    "_embedding_bag_backward",
    "_log_softmax_backward_data",
    "_reshape_alias",
    "_safe_softmax",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
    "_softmax_backward_data",
    "_to_copy",
    "_unsafe_view",
    "_upsample_bilinear2d_aa",
    "avg_pool2d_backward",
    "binary_cross_entropy_backward",
    "convolution_backward",
    "elu_backward",
    "embedding_dense_backward",
    "gelu_backward",
    "hardsigmoid_backward",
    "hardswish_backward",
    "hardtanh_backward",
    "huber_loss_backward",
    "index",
    "leaky_relu_backward",
    "linear_backward",
    "log_sigmoid_backward",
    "log_sigmoid_forward",
    "logit_backward",
    "max_pool2d_with_indices",
    "max_pool2d_with_indices_backward",
    "mish_backward",
    "mse_loss_backward",
    "native_batch_norm_backward",
    "native_dropout_backward",
    "native_group_norm_backward",
    "native_layer_norm_backward",
    "new_zeros",
    "nll_loss2d_backward",
    "nll_loss2d_forward",
    "nll_loss_backward",
    "nll_loss_forward",
    "select_backward",
    "sigmoid_backward",
    "silu_backward",
    "slice",
    "slice_backward",
    "smooth_l1_loss_backward",
    "softplus_backward",
    "soft_margin_loss_backward",
    "tanh_backward",
    "threshold_backward",
    "unfold_backward",
    "upsample_bilinear2d_backward",
    "upsample_nearest2d_backward",
)
# What optimizers call on lists of tensors. They change with every version of torch, all by one pattern.
_OVER_LISTS = (
    *(name for name in dir(torch) if name.startswith("_foreach_")),
    *("_fused_adagrad_", "_fused_adam_", "_fused_adamw_", "_fused_sgd_"),
)


def _present(prefix: str, place: Any, names: tuple[str, ...]) -> dict[str, Operation]:
    # Private functions come and go between the versions of torch that we support.
    return {f"{prefix}.{name}": getattr(place, name) for name in names if hasattr(place, name)}


def _returning_target(assign: Operation) -> Operation:
    """Make an assignment return what was assigned to, so that the answer tells its new metadata."""

    def assigned(target: Tensor, *values: Any) -> Tensor:
        assign(target, *values)
        return target

    return assigned


def _in_place_functions(operations: dict[str, Operation]) -> dict[str, Operation]:
    # `torch.relu_` and its kind are left out of torch's own list, though pointers meet them.
    names = [name for name in operations if name.count(".") == 1]
    return {
        f"{name}_": function
        for name in names
        if callable(function := getattr(torch, f"{name.removeprefix('torch.')}_", None))
    }


_EXTRA_OPERATIONS: dict[str, Operation] = {
    "torch.result_type": torch.result_type,
    "torch.autograd.grad": torch.autograd.grad,
    **MADE_OVERRIDABLE,
    **_present("torch", torch, _FUNCTIONS_UNLISTED),
    **_present("torch", torch, _OVER_LISTS),
    **_present("torch.Tensor", Tensor, _METHODS_UNLISTED),
    **_present("torch.nn.functional", torch.nn.functional, _FUNCTIONALS_UNLISTED),
    **_present("torch.sparse", torch.sparse, _SPARSE_UNLISTED),
    # What functions of the same names, themselves in Python, call when they are given a list.
    **_present("torch._VF", torch._VF, ("atleast_1d", "atleast_2d", "atleast_3d", "meshgrid")),
    **_present("torch._VF", torch._VF, ("_pack_padded_sequence", "_pad_packed_sequence")),
    **_present("torch._C._nn", torch._C._nn, ("pad_sequence",)),
    **_present("torch.nn.init", torch.nn.init, _INITIALIZERS),
    **_present("torch.ops.aten", torch.ops.aten, _OPERATORS_UNLISTED),
}


def _build() -> tuple[dict[str, Operation], dict[Operation, str]]:
    refused = refused_functions()
    functions = [f for group in get_overridable_functions().values() for f in group if f not in refused]
    operations = {name: f for f in functions if (name := resolve_name(f)) is not None}
    names: dict[Operation, str] = {f: name for f in functions if (name := resolve_name(f)) is not None}
    extras = {**FACTORIES, **_in_place_functions(operations), **_EXTRA_OPERATIONS}
    operations.update(extras)
    names.update({f: name for name, f in extras.items()})
    for attribute in _SETTERS:
        setter, name = getattr(Tensor, attribute).__set__, f"torch.Tensor.{attribute}.__set__"
        operations[name], names[setter] = _returning_target(setter), name
    operations["torch.Tensor.__setitem__"] = _returning_target(Tensor.__setitem__)
    return operations, names


OPERATIONS, NAMES = _build()
"""Functions by operation name, for workers; operation names by function, for pointers."""
