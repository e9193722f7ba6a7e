"""The net below: operations that reach the dispatcher without having passed `__torch_function__`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedlightning.pointers.errors import UnsupportedOperationError
from fedlightning.pointers.execution import execute
from fedlightning.pointers.operations import OPERATIONS

if TYPE_CHECKING:
    from fedlightning.pointers.tensor import PointerTensor


def catch(cls: type[PointerTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a stray operation at the worker, if no gradient can be lost by it.

    Args:
        cls: The class of the pointers.
        func: The operator that the dispatcher was about to run.
        args: Its arguments.
        kwargs: Its arguments.

    Raises:
        UnsupportedOperationError: A gradient would be cut silently, or the operation is not offered.
    """
    name = func.overloadpacket.__name__
    if torch.is_grad_enabled() and any(_needs_grad(value) for value in (*args, *kwargs.values())):
        raise UnsupportedOperationError(
            f"{func} reached a pointer below torch's functions, and lost its gradient: "
            f"call the operation through torch, or under torch.no_grad()"
        )
    for operation in (f"torch.{name}", f"torch.Tensor.{name}"):
        if operation in OPERATIONS:
            return execute(cls, operation, args, kwargs)
    raise UnsupportedOperationError(f"{func} is not offered on pointers: call .get() first")


def _needs_grad(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_needs_grad, value))
    return isinstance(value, Tensor) and value.requires_grad
