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

_aten = torch.ops.aten
_DEVICE = torch.ops.prim.device.default
_RESHAPING_IN_PLACE = frozenset(
    (_aten.squeeze_, _aten.unsqueeze_, _aten.t_, _aten.transpose_, _aten.swapaxes_, _aten.swapdims_)
)


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
    if func is _DEVICE:
        device: torch.device = args[0]._description.device
        return device
    if torch.is_grad_enabled() and any(_needs_grad(value) for value in (*args, *kwargs.values())):
        raise UnsupportedOperationError(
            f"{func} reached a pointer below torch's functions, where its gradient would be lost: "
            f"detach() the pointer first, call the operation through torch, or under torch.no_grad()"
        )
    if func.overloadpacket in _RESHAPING_IN_PLACE:
        _reshape_wrapper(func, args, kwargs)
    return run_operator(cls, func, args, kwargs)


def _reshape_wrapper(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Let an operation that changes no value in place change the wrapper too.

    The caller down here holds the wrapper's implementation, and would not see it exchanged for another.
    """
    pointer = args[0]
    with torch._C.DisableTorchFunctionSubclass(), torch._C._DisableTorchDispatch():
        func(*args, **kwargs)
    pointer._description = pointer._description._replace(
        shape=pointer.shape, stride=pointer.stride(), storage_offset=pointer.storage_offset()
    )


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
    for operation in (f"torch.ops.aten.{name}", f"torch.{name}", f"torch.Tensor.{name}"):
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
