"""Calls on pointers that are answered here, or that change what is known here. All others become messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fedlightning.pointers.backward import run_backward
from fedlightning.pointers.errors import UnsupportedOperationError
from fedlightning.pointers.execution import execute
from fedlightning.pointers.messages import TensorDescription

Handler: TypeAlias = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

# The wrapper has the remote tensor's size, strides and type: torch itself answers these from it.
_KNOWN_HERE = (
    "__len__",
    "dim",
    "element_size",
    "is_complex",
    "is_contiguous",
    "is_distributed",
    "is_floating_point",
    "is_inference",
    "is_signed",
    "ndimension",
    "nelement",
    "numel",
    "size",
    "storage_offset",
    "stride",
)
_ATTRIBUTES_KNOWN_HERE = (
    "_backward_hooks",
    "_post_accumulate_grad_hooks",
    "dtype",
    "is_mkldnn",
    "is_nested",
    "is_quantized",
    "is_sparse",
    "is_sparse_csr",
    "itemsize",
    "name",
    "nbytes",
    "ndim",
    "output_nr",
    "retains_grad",
    "shape",
)


@dataclass(frozen=True, slots=True)
class RemoteNode:
    """Stand for a node of the autograd graph, which lives at the worker."""

    location: str
    object_id: int

    def __getattr__(self, name: str) -> Any:
        # Asked for hooks, and for the nodes behind this one.
        if name.startswith("__"):
            raise AttributeError(name)
        raise UnsupportedOperationError(
            f"the autograd graph is at {self.location!r} and not to be walked here"
        )


def _from_wrapper(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    for pointer in args[:1] or kwargs.values():
        if "_promised" in pointer.__dict__:
            pointer.settle()
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


def _described(name: str) -> Handler:
    """Answer with what the worker has described."""
    position = TensorDescription._fields.index(name)
    return lambda func, args, kwargs: args[0]._description[position]


def _get_device(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    index = args[0]._description.device.index
    return -1 if index is None else int(index)


def _is_on(kind: str) -> Handler:
    return lambda func, args, kwargs: bool(args[0]._description.device.type == kind)


def _grad_fn(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> RemoteNode | None:
    pointer = args[0]
    return None if pointer._description.is_leaf else RemoteNode(pointer.location.id, pointer.id_at_location)


def _grad(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pointer = args[0]
    present = pointer.location.known_gradients.present
    if present is not None and pointer.id_at_location not in present:
        return None
    # The same gradient as long as the worker has not told of a newer one: optimizers ask twice for each.
    known_from, gradient = pointer.__dict__.get("_grad_pointer", (None, None))
    if present is None or known_from is not present:
        known_to_be = present is not None
        gradient = execute(type(pointer), "torch.Tensor.grad.__get__", args, kwargs, one_tensor=known_to_be)
        pointer._grad_pointer = (present, gradient)
    return gradient


def _set_grad(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    target, gradient = args
    # Of a local tensor's gradient that is set to a pointer, the pointer makes the message, and the error.
    pointer = target if hasattr(target, "_handle") else gradient
    execute(type(pointer), "torch.Tensor.grad.__set__", args, kwargs)
    pointer.__dict__.pop("_grad_pointer", None)
    pointer.location.known_gradients.note(pointer.id_at_location, has_gradient=gradient is not None)


def _backward(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    tensor, *rest = args
    tensor.backward(*rest, **kwargs)


_ANSWERED: dict[str, Handler] = {
    **{name: _described(name) for name in ("requires_grad", "is_leaf", "layout", "device")},
    **{f"is_{kind}": _is_on(kind) for kind in ("cpu", "cuda", "meta", "mps", "mtia", "xla", "xpu")},
    "grad_fn": _grad_fn,
    "grad": _grad,
}


def _backward_from_several(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Any = None,
    inputs: Any = None,
) -> None:
    starts = (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)
    gradients = (grad_tensors,) if isinstance(grad_tensors, Tensor) else grad_tensors
    run_backward(starts, gradients or (None,) * len(starts), retain_graph, create_graph, inputs)


def _handlers() -> dict[Callable[..., Any], Handler]:
    handlers: dict[Callable[..., Any], Handler] = {}
    for name in _KNOWN_HERE:
        for place in (Tensor, torch):
            if hasattr(place, name):
                handlers[getattr(place, name)] = _from_wrapper
    for get_device in (Tensor.get_device, torch.get_device):
        handlers[get_device] = _get_device
    for name in _ATTRIBUTES_KNOWN_HERE:
        handlers[getattr(Tensor, name).__get__] = _from_wrapper
    descriptors: dict[str, Any] = {name: getattr(Tensor, name) for name in _ANSWERED}
    for name, answer in _ANSWERED.items():
        handlers[descriptors[name].__get__] = answer
    handlers[descriptors["grad"].__set__] = _set_grad
    handlers[descriptors["grad"].__delete__] = lambda func, args, kwargs: _set_grad(
        func, (*args, None), kwargs
    )
    handlers[Tensor.backward] = _backward
    handlers[torch.autograd.backward] = lambda func, args, kwargs: _backward_from_several(*args, **kwargs)
    # Asked by `module.half()` and its kind, before they assign to a parameter's data, which pointers offer.
    handlers[torch._has_compatible_shallow_copy_type] = lambda func, args, kwargs: True
    return handlers


HANDLERS = _handlers()
"""How to answer a call here, by the torch function that is called."""
