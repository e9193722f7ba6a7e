"""The ways to call an operator of torch's database: function, method, operator, in place, into `out=`.

Each is a function of the sample's arguments. Comparing results is the part of `comparison`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

Sample: TypeAlias = tuple[Any, tuple[Any, ...], dict[str, Any]]
Form: TypeAlias = Callable[[Any, Sample], Any]

FORMS = (
    "forward",
    "backward",
    "method",
    "operator",
    "in-place",
    "in-place operator",
    "in-place backward",
    "out",
    "out resized",
)


def form_of(operator: Any, name: str, expected: Any) -> Form | None:
    """Return one way of calling an operator; None if it does not have it.

    Args:
        operator: An entry of the database.
        name: One of `FORMS`.
        expected: The local result of the plain call, which tells what ``out`` must look like.
    """
    if name == "forward":
        return _call
    if name == "backward":
        return _call_and_backward if operator.supports_autograd else None
    if name in ("out", "out resized"):
        return _into_out(expected, resized=name == "out resized") if operator.supports_out else None
    variant = _variant(operator, name)
    if variant is None:
        return None
    if name == "in-place backward":
        autograd = operator.supports_autograd and operator.supports_inplace_autograd
        return _in_place_on_a_copy(variant, backward=True) if autograd else None
    if name in ("in-place", "in-place operator"):
        return _in_place_on_a_copy(variant, backward=False)
    return lambda operator, sample: variant(sample[0], *sample[1], **sample[2])


def _variant(operator: Any, name: str) -> Callable[..., Any] | None:
    variants = {
        "method": operator.method_variant,
        "operator": operator.operator_variant,
        "in-place": operator.inplace_variant,
        "in-place operator": operator.inplace_operator_variant,
        "in-place backward": operator.inplace_variant,
    }
    variant: Callable[..., Any] | None = variants[name]
    return variant


def _call(operator: Any, sample: Sample) -> Any:
    value, args, kwargs = sample
    return operator(value, *args, **kwargs)


def _call_and_backward(operator: Any, sample: Sample) -> Any:
    result = _call(operator, sample)
    return (result, _backward(result, sample))


def _in_place_on_a_copy(variant: Callable[..., Any], *, backward: bool) -> Form:
    # A leaf that requires grad cannot be changed in place, and a sample's tensors are leaves.
    def call(operator: Any, sample: Sample) -> Any:
        value, args, kwargs = sample
        if not backward:
            value, args, kwargs = tree_map(_without_grad, (value, args, kwargs))
        target = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, value)
        result = variant(target, *args, **kwargs)
        same = isinstance(target, Tensor) and result is target
        return (result, target, same, _backward(result, sample) if backward else None)

    return call


def _into_out(expected: Any, *, resized: bool) -> Form:
    def call(operator: Any, sample: Sample) -> Any:
        value, args, kwargs = tree_map(_without_grad, sample)
        some = next(leaf for leaf in tree_leaves((value, args, kwargs)) if isinstance(leaf, Tensor))
        out = tree_map(lambda result: _blank(some, result, resized), expected)
        out = tuple(out) if isinstance(out, (tuple, list)) else out
        result = operator(value, *args, **kwargs, out=out)
        same = [a is b for a, b in zip(tree_leaves(result), tree_leaves(out), strict=True)]
        return (result, out, same)

    return call


def _blank(some: Tensor, result: Any, resized: bool) -> Any:
    """Make a tensor to write a result into, in the same place as ``some``."""
    if not isinstance(result, Tensor):
        return result
    shape = (0,) if resized else result.shape
    return some.detach().new_zeros(shape, dtype=result.dtype)


def _without_grad(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _backward(result: Any, sample: Sample) -> Any:
    """Return the gradients of a sample's tensors; None where torch itself has none for this result."""
    inexact = [
        leaf
        for leaf in tree_leaves(result)
        if isinstance(leaf, Tensor) and leaf.requires_grad and (leaf.is_floating_point() or leaf.is_complex())
    ]
    if not inexact:
        return None
    total = sum((leaf.abs() if leaf.is_complex() else leaf).sum() for leaf in inexact)
    assert isinstance(total, Tensor)
    try:
        total.backward()
    except NotImplementedError:
        return None
    leaves = [leaf for leaf in tree_leaves(sample) if isinstance(leaf, Tensor) and leaf.is_leaf]
    with torch.no_grad():
        return [leaf.grad for leaf in leaves]
