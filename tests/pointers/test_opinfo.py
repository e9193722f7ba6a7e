"""torch's own database of operators: each computes on pointers, forward and backward, what it does locally.

One sample per operator. What is not offered is named here, and is refused with an error.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from fedlightning.pointers import HiddenValueError, MixedLocationsError, PointerTensor
from fedlightning.workers import VirtualWorker

PARTS = 8
REFUSED = {
    "item": HiddenValueError,
    # They divide by a count that they make locally.
    "masked.std": MixedLocationsError,
    "masked.var": MixedLocationsError,
}
UNDEFINED_VALUES = (
    "empty",
    "empty_like",
    "new_empty",
    "new_empty_strided",
    "empty_strided",
    "empty_permuted",
)


@pytest.mark.parametrize("part", range(PARTS))
def test_operators_equal_local_ones_bit_for_bit(part: int) -> None:
    # Imported here because it takes seconds, which a run of other tests need not spend.
    from torch.testing._internal.common_methods_invocations import op_db

    compared, failures = 0, []
    for operator in op_db[part::PARTS]:
        sample = _sample(operator)
        if sample is None or operator.name.startswith("jiterator"):
            continue
        compared += 1
        name = f"{operator.name}.{operator.variant_test_name}".rstrip(".")
        try:
            _compare(operator, name, sample)
        except Exception as error:  # noqa: BLE001 - every failure is named, not the first one only
            failures.append(f"{name}: {type(error).__name__}: {error}")
    assert not failures, "\n".join(failures)
    assert compared > 60


def _sample(operator: Any) -> tuple[Any, ...] | None:
    """Return the first sample's arguments; None where there is no tensor among them."""
    if torch.float32 not in operator.supported_dtypes("cpu"):
        return None
    torch.manual_seed(0)
    samples = operator.sample_inputs("cpu", torch.float32, requires_grad=operator.supports_autograd)
    sample = next(iter(samples))
    arguments = (sample.input, sample.args, sample.kwargs)
    return arguments if any(isinstance(leaf, Tensor) for leaf in tree_leaves(arguments)) else None


def _compare(operator: Any, name: str, sample: tuple[Any, ...]) -> None:
    worker = VirtualWorker(id="bob")
    local = tree_map(_twin, sample)
    remote = tree_map(lambda leaf: worker.send(leaf) if isinstance(leaf, Tensor) else leaf, sample)
    if name in REFUSED:
        with pytest.raises(REFUSED[name]):
            _call(operator, remote)
        return
    expected, result = _tensors(_call(operator, local)), _tensors(_call(operator, remote))
    assert len(result) == len(expected)
    for got, want in zip(result, expected, strict=True):
        assert isinstance(got, PointerTensor)
        assert (got.shape, got.dtype, got.requires_grad) == (want.shape, want.dtype, want.requires_grad)
    if _backward(expected):
        assert _backward(result)
        for want, got in zip(_tensors(local), _tensors(remote), strict=True):
            _assert_same_gradient(got, want)
    if operator.name not in UNDEFINED_VALUES:
        for got, want in zip(result, expected, strict=True):
            _assert_same(got.get(), want)


def _twin(leaf: Any) -> Any:
    return leaf.detach().clone().requires_grad_(leaf.requires_grad) if isinstance(leaf, Tensor) else leaf


def _call(operator: Any, arguments: tuple[Any, ...]) -> Any:
    value, args, kwargs = arguments
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the database exercises deprecated and experimental operators too
        return operator(value, *args, **kwargs)


def _tensors(value: Any) -> list[Any]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _backward(results: list[Any]) -> bool:
    """Compute gradients; False where torch itself has none for these results."""
    inexact = [r for r in results if r.requires_grad and (r.is_floating_point() or r.is_complex())]
    if not inexact:
        return False
    total = sum((r.abs() if r.is_complex() else r).sum() for r in inexact)
    try:
        total.backward()
    except RuntimeError:
        return False
    return True


def _assert_same_gradient(got: PointerTensor, want: Tensor) -> None:
    assert (got.grad is None) == (want.grad is None)
    if want.grad is not None:
        _assert_same(got.grad.get(), want.grad)


def _assert_same(got: Tensor, want: Tensor) -> None:
    dense = [
        value.detach().to_dense() if value.layout != torch.strided else value.detach()
        for value in (got, want)
    ]
    torch.testing.assert_close(*dense, rtol=0, atol=0, equal_nan=True)
