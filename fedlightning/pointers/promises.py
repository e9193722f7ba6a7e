"""Operations whose result is known to be one tensor, so that a pointer to it need not wait for the worker.

What such a pointer does not know yet, shape and the like, it asks for when somebody wants to know.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, get_type_hints

import torch
from torch import Tensor

from fedlightning.pointers.messages import TensorDescription
from fedlightning.pointers.operations import OPERATIONS

UNKNOWN = TensorDescription(
    0, torch.Size(()), (), 0, torch.float32, torch.strided, torch.device("cpu"), False, True
)
"""Stands for the description of a tensor that has not been described yet."""

# Python operators, which torch's schemas know by other names.
_OPERATORS = frozenset(
    f"torch.Tensor.__{name}__"
    for name in (
        *("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv", "rfloordiv", "mod"),
        *("pow", "rpow", "matmul", "rmatmul", "neg", "pos", "abs", "invert", "and", "or", "xor"),
        *("eq", "ne", "lt", "le", "gt", "ge", "getitem"),
    )
)
_CONVERSIONS = frozenset(
    f"torch.Tensor.{name}"
    for name in (
        *("bfloat16", "bool", "byte", "char", "double", "float", "half", "int", "long", "short"),
        *(f"{name}.__get__" for name in ("data", "H", "T", "mH", "mT")),
    )
)
_IN_PLACE = frozenset(
    f"torch.Tensor.__{name}__" for name in ("iadd", "isub", "imul", "itruediv", "ipow", "setitem")
)


@cache
def gives_one_tensor(operation: str) -> bool:
    """Tell whether an operation returns exactly one tensor, whatever its arguments.

    Args:
        operation: Name on the allow-list.
    """
    if operation in _OPERATORS | _CONVERSIONS | _IN_PLACE:
        return True
    place, _, name = operation.rpartition(".")
    if name == "nonzero":
        # It gives a tuple if asked for one, which no schema tells.
        return False
    if place == "torch.nn.functional":
        return _is_declared_so(OPERATIONS[operation]) or _schemas_say_so(name, OPERATIONS[operation])
    return place in ("torch", "torch.Tensor") and _schemas_say_so(name, OPERATIONS[operation])


@cache
def changes_its_first_argument(operation: str) -> bool:
    """Tell whether what an operation returns is its first argument.

    Args:
        operation: Name on the allow-list.
    """
    return operation in _IN_PLACE or (operation.endswith("_") and not operation.endswith("__"))


def _schemas_say_so(name: str, function: Callable[..., Any]) -> bool:
    # A function in Python may do otherwise than the operator of its name.
    if hasattr(function, "__code__"):
        return _is_declared_so(function)
    schemas = torch._C._jit_get_schemas_for_operator(f"aten::{name}")
    # Some are for plain numbers and lists, which are no business of tensors.
    returns = [_types(schema.returns) for schema in schemas if "Tensor" in _types(schema.arguments)]
    return bool(returns) and all(one == ["Tensor"] for one in returns)


def _types(values: Any) -> list[str]:
    return [str(value.type) for value in values]


def _is_declared_so(function: Callable[..., Any]) -> bool:
    if not hasattr(function, "__code__"):
        return False
    try:
        return get_type_hints(function).get("return") is Tensor
    except (NameError, TypeError):
        return False
