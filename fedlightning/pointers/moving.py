"""Bring objects from worker to worker, and pointers to workers: what is owned is owned once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedlightning.pointers.errors import UnsupportedOperationError
from fedlightning.pointers.handle import Handle
from fedlightning.pointers.ids import new_id
from fedlightning.pointers.location import Location
from fedlightning.pointers.messages import Move, ObjectDescription, Put, Recall, TensorDescription
from fedlightning.pointers.rounds import current_round

if TYPE_CHECKING:
    from fedlightning.pointers.tensor import PointerTensor


def move_object(handle: Handle, destination: Location) -> TensorDescription | ObjectDescription:
    """Let an object's worker hand it over to another one; nothing of it passes the controller.

    Args:
        handle: The object's, which is spent then.
        destination: A worker that the object's worker reaches directly.

    Returns:
        What the destination says of it.

    Raises:
        RefusedByPolicy: It may not go there.
    """
    source, result_id = handle.location, new_id()
    message = Move(handle.use().object_id, destination.id, destination.generation, result_id, current_round())
    known = source.known_gradients.present
    has_gradient = None if known is None else message.object_id in known
    description: TensorDescription | ObjectDescription = source.submit(message).wait()
    _note_gradient(destination, result_id, has_gradient)
    handle.retire(f"was moved to {destination.id!r}")
    return description


def _note_gradient(destination: Location, object_id: int, has_gradient: bool | None) -> None:
    if has_gradient is None:
        destination.known_gradients.forget()
    elif has_gradient:
        destination.known_gradients.note(object_id, has_gradient=True)


def send_pointer(pointer: PointerTensor, holder: Location) -> PointerTensor:
    """Let a worker hold a pointer, and with it the object: what is done at the worker is done through it.

    Args:
        pointer: A pointer, which no longer owns its object then.
        holder: A worker that reaches the object's worker directly.

    Returns:
        A pointer to the pointer.

    Raises:
        UnsupportedOperationError: It would point to its own worker, or to one that it does not reach.
    """
    location = pointer.location
    if location is holder:
        raise UnsupportedOperationError(
            f"this tensor is at {holder.id!r} already: .move(worker) brings it elsewhere"
        )
    if not holder.reaches(location):
        raise UnsupportedOperationError(
            f"{holder.id!r} cannot hold a pointer to {location.id!r}, which it does not reach directly: "
            f"bring the tensor itself there with .move({holder.id})"
        )
    kind, handle = type(pointer), pointer._handle
    put = Put(new_id(), kind.point(location, pointer._description, owned=False), round=current_round())
    handle.use()
    outer = kind.point(holder, holder.submit(put).wait())
    put.value._handle.owned, handle.owned = handle.owned, False
    return outer


def recall(pointer: PointerTensor) -> PointerTensor:
    """Let a worker fetch the object that its pointer leads to.

    Args:
        pointer: A pointer to a pointer. It stays as it is, and leads to the object then.

    Returns:
        The same pointer.

    Raises:
        RemoteError: What it points to is no pointer.
        RefusedByPolicy: The object may not go there.
    """
    place = pointer.location
    description = place.submit(Recall(pointer._handle.use().object_id, current_round())).wait()
    # Whether it has brought a gradient is not told.
    place.known_gradients.forget()
    return pointer.refresh(description)
