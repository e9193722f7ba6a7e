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
    if torch.is_grad_enabled() and any(_needs_grad(value) for value in (*args, *kwargs.values())):
        raise UnsupportedOperationError(
            f"{func} reached a pointer below torch's functions, and lost its gradient: "
            f"call the operation through torch, or under torch.no_grad()"
        )
    return run_operator(cls, func, args, kwargs)


def run_operator(cls: type[PointerTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run one of the dispatcher's operators at the worker, as the torch function of the same name.

    Args:
        cls: The class of the pointers.
        func: The operator, with or without its overload.
        args: Its arguments.
        kwargs: Its arguments.

    Raises:
        UnsupportedOperationError: No such function is on the allow-list.
    """
    name = getattr(func, "overloadpacket", func).__name__
    for operation in (f"torch.{name}", f"torch.Tensor.{name}", f"torch.ops.aten.{name}"):
        if operation in OPERATIONS:
            return execute(cls, operation, args, kwargs)
    raise UnsupportedOperationError(f"{func} is not offered on pointers: call .get() first")


def _needs_grad(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_needs_grad, value))
    # Asked of the description: at this depth torch answers for the wrapper, which never requires grad.
    description = getattr(value, "_description", None)
    return (
        bool(description.requires_grad) if description else isinstance(value, Tensor) and value.requires_grad
    )
