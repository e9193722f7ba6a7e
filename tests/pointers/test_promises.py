"""Where one tensor is promised, one tensor comes: compared with what torch's own functions return."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.testing._internal.common_methods_invocations import op_db

from fedlightning.pointers.operations import NAMES, OPERATIONS
from fedlightning.pointers.promises import changes_its_first_argument, gives_one_tensor
from tests.operators import samples_of

# All operators take a minute: ``PROMISES_SPACING=1 pytest tests/pointers/test_promises.py``.
SPACING = int(os.environ.get("PROMISES_SPACING", "12"))


class Comparing(TorchFunctionMode):
    """Compare each result with what would have been promised."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.broken: set[str] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = NAMES.get(func, "")
        if name and gives_one_tensor(name):
            self.seen.add(name)
            same = not changes_its_first_argument(name) or result is args[0] or result is None
            if not same or not (isinstance(result, torch.Tensor) or name.endswith("__setitem__")):
                self.broken.add(name)
        return result


def test_promises_are_kept() -> None:
    comparing = Comparing()
    for operator in op_db[::SPACING]:
        if torch.float32 in operator.supported_dtypes("cpu"):
            sample = next(samples_of(operator))
            for function in (operator.op, operator.method_variant, operator.inplace_variant):
                if function is not None:
                    _call(comparing, function, sample)
    assert comparing.broken == set()
    assert len(comparing.seen) > 600 / SPACING


def _call(comparing: Comparing, function: Callable[..., Any], sample: Any) -> None:
    first = sample.input.clone() if isinstance(sample.input, torch.Tensor) else sample.input
    try:
        with comparing:
            function(first, *sample.args, **sample.kwargs)
    except (RuntimeError, TypeError, AttributeError, ValueError, NotImplementedError, AssertionError):
        # Not every sample suits every form of its operator.
        return


@pytest.mark.parametrize(
    "operation",
    [
        "torch.Tensor.add",
        "torch.Tensor.mul_",
        "torch.Tensor.__getitem__",
        "torch.nn.functional.conv2d",
        "torch.nn.functional.linear",
        "torch.nn.functional.cross_entropy",
    ],
)
def test_what_networks_are_made_of_is_promised(operation: str) -> None:
    assert gives_one_tensor(operation)


@pytest.mark.parametrize(
    "operation",
    ["torch.Tensor.max", "torch.where", "torch.Tensor.size", "torch.nonzero", "torch.functional.split"],
)
def test_nothing_is_promised_that_may_be_something_else(operation: str) -> None:
    assert operation in OPERATIONS
    assert not gives_one_tensor(operation)


def test_only_operations_in_place_change_their_first_argument() -> None:
    assert changes_its_first_argument("torch.Tensor.add_")
    assert changes_its_first_argument("torch.Tensor.__iadd__")
    assert not changes_its_first_argument("torch.Tensor.__add__")
