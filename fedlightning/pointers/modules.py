"""Send a module to a worker and get it back, such that its parameters stay the objects they were.

An optimizer built before holds the same parameters all along: what is exchanged is what they are made of.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from fedlightning.pointers.errors import PointerError
from fedlightning.pointers.factories import watch_forward
from fedlightning.pointers.location import Location, check_place, controller
from fedlightning.pointers.lost_gradients import refuse_gradient
from fedlightning.pointers.objects import fetch
from fedlightning.pointers.optimizers import follow_parameters
from fedlightning.pointers.sending import send_tensor
from fedlightning.pointers.swap import exchange
from fedlightning.pointers.tensor import PointerTensor

M = TypeVar("M", bound=nn.Module)
_WATCH = "_forward_watch"


def send_module(module: M, location: Location) -> M:
    """Send a module's parameters and buffers, which become pointers in place.

    Args:
        module: Any module, all of it local.
        location: The worker.

    Returns:
        The same module.

    Raises:
        PointerError: A part of it is at a worker already, or it is lazy and has no parameters yet.
        TypeError: The location is no worker.

    Example:
        >>> import torch
        >>> from fedlightning.workers import VirtualWorker
        >>> bob, line = VirtualWorker(id="bob"), nn.Linear(2, 1)
        >>> weight = line.weight
        >>> send_module(line, bob)(bob.send(torch.ones(3, 2))).shape
        torch.Size([3, 1])
        >>> weight is line.weight, weight.location.id
        (True, 'bob')
    """
    check_place(location)
    tensors = _tensors(module)
    for tensor in tensors:
        _check_local(tensor)
    follow_parameters()
    # All of them are sent before any is exchanged: if one cannot be, the module is as it was.
    pointers = [send_tensor(tensor, location) for tensor in tensors]
    for tensor, pointer in zip(tensors, pointers, strict=True):
        _become(tensor, pointer)
    module.__dict__[_WATCH] = watch_forward(module, location)
    return module


def get_module(module: M) -> M:
    """Bring a sent module back, with its gradients.

    Args:
        module: A module that was sent.

    Returns:
        The same module.

    Raises:
        PointerError: It is here already.
        RefusedByPolicy: A part of it may not leave; then all of it stays.

    Example:
        >>> import torch
        >>> from fedlightning.workers import VirtualWorker
        >>> bob, line = VirtualWorker(id="bob"), nn.Linear(2, 1)
        >>> _ = send_module(line, bob)(bob.send(torch.ones(1, 2))).sum().backward()
        >>> get_module(line).weight.grad
        tensor([[1., 1.]])
    """
    pointers = _pointers(module)
    for pointer, tensor in zip(pointers, _fetch_all(pointers), strict=True):
        _become_local(pointer, tensor)
    _end_watch(module)
    return module


def move_module(module: M, location: Location) -> M:
    """Bring a sent module to another worker; it keeps its parameters and gradients.

    Args:
        module: A module that was sent.
        location: The worker to bring it to; the controller's own brings it here, as `get_module` does.

    Returns:
        The same module.

    Raises:
        PointerError: It is here; `send_module` is for that.
        RefusedByPolicy: A part of it may not leave its worker; then all of it stays.

    Example:
        >>> from fedlightning.workers import VirtualWorker
        >>> alice, bob = VirtualWorker(id="alice"), VirtualWorker(id="bob")
        >>> line = send_module(nn.Linear(2, 1), bob)
        >>> move_module(line, alice).weight.location.id
        'alice'
    """
    if location is controller():
        return get_module(module)
    pointers = _pointers(module)
    for pointer, moved in zip(pointers, _move_all(pointers, location), strict=True):
        _lead_to(pointer, moved)
    _end_watch(module)
    module.__dict__[_WATCH] = watch_forward(module, location)
    return module


def _pointers(module: nn.Module) -> list[PointerTensor]:
    pointers = [tensor for tensor in _tensors(module) if isinstance(tensor, PointerTensor)]
    if not pointers and _WATCH not in module.__dict__:
        raise PointerError(f"this {type(module).__name__} is here already: send it with .send(worker) first")
    return pointers


def _end_watch(module: nn.Module) -> None:
    for handle in module.__dict__.pop(_WATCH, ()):
        handle.remove()


def _tensors(module: nn.Module) -> list[Tensor]:
    unique = {id(tensor): tensor for tensor in chain(module.parameters(), module.buffers())}
    return list(unique.values())


def _check_local(tensor: Tensor) -> None:
    if isinstance(tensor, PointerTensor):
        raise PointerError(
            f"the module is at {tensor.location.id!r} already: .move(worker) brings it elsewhere, .get() here"
        )
    if nn.parameter.is_lazy(tensor):
        raise PointerError("the module is lazy and has no parameters yet: call it once before it is sent")


def _become(tensor: Tensor, pointer: PointerTensor) -> None:
    """Make a local tensor, which keeps its identity, the pointer."""
    attributes: dict[str, Any] = {**pointer.__dict__, "_local_class": type(tensor)}
    if isinstance(tensor, nn.Parameter):
        attributes["_is_param"] = True
    refuse_gradient(tensor, f"was sent to {pointer.location.id!r}")
    exchange(tensor, pointer)
    tensor.__dict__.update(attributes)


def _become_local(pointer: PointerTensor, tensor: Tensor) -> None:
    """Make a pointer, which keeps its identity, the local tensor."""
    local_class = pointer.__dict__.pop("_local_class", Tensor)
    for name in ("_handle", "_description", "_promised", "_grad_pointer", "_is_param"):
        pointer.__dict__.pop(name, None)
    exchange(pointer, tensor)
    pointer.__class__ = local_class


def _fetch_all(pointers: list[PointerTensor]) -> list[Tensor]:
    """Fetch the tensors of all pointers, or of none."""
    fetched: dict[PointerTensor, Tensor] = {}
    try:
        for pointer in pointers:
            fetched[pointer] = fetch(pointer._handle)
    except RuntimeError:
        for spent, tensor in fetched.items():
            _put_back(spent, tensor)
        raise
    return list(fetched.values())


def _put_back(pointer: PointerTensor, tensor: Tensor) -> None:
    try:
        again = send_tensor(tensor, pointer.location)
    except RuntimeError:
        # The worker is lost, and what had come is all that there is.
        _become_local(pointer, tensor)
    else:
        _lead_to(pointer, again)


def _move_all(pointers: list[PointerTensor], location: Location) -> list[PointerTensor]:
    """Move the tensors of all pointers, or of none."""
    moved: dict[PointerTensor, PointerTensor] = {}
    try:
        for pointer in pointers:
            moved[pointer] = cast("PointerTensor", pointer.move(location))
    except RuntimeError:
        for pointer, there in moved.items():
            _lead_to(pointer, cast("PointerTensor", there.move(pointer.location)))
        raise
    return list(moved.values())


def _lead_to(pointer: PointerTensor, other: PointerTensor) -> None:
    """Make a pointer, which keeps its identity, lead where another leads."""
    pointer._handle, pointer._description = other._handle, other._description
    for name in ("_grad_pointer", "_promised"):
        pointer.__dict__.pop(name, None)
