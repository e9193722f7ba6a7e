"""Send a tensor to a worker. Modules, whose parameters keep their identity, are sent by `modules`."""

from __future__ import annotations

from torch import Tensor

from fedlightning.pointers.adjusting import adjust_torch
from fedlightning.pointers.errors import UnsupportedOperationError
from fedlightning.pointers.ids import new_id
from fedlightning.pointers.location import Location
from fedlightning.pointers.messages import Put
from fedlightning.pointers.moving import send_pointer
from fedlightning.pointers.rounds import current_round
from fedlightning.pointers.tensor import PointerTensor


def send_tensor(
    tensor: Tensor, location: Location, *, tags: tuple[str, ...] = (), description: str = ""
) -> PointerTensor:
    """Send a copy of a tensor to a worker, with its gradient if it has one.

    Args:
        tensor: Any local tensor. What it was computed from stays behind: at the worker it is a leaf.
        location: The worker.
        tags: Words to find it by.
        description: For people.

    Returns:
        A pointer that owns the copy. Of a pointer it is a pointer to a pointer, without tags.

    Raises:
        UnsupportedOperationError: It is a pointer to this worker, or a subclass with data elsewhere.
    """
    if isinstance(tensor, PointerTensor):
        return send_pointer(tensor, location)
    if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        raise UnsupportedOperationError(f"a {type(tensor).__name__} cannot be sent: send plain tensors")
    adjust_torch()
    put = Put(new_id(), tensor, tuple(tags), description, round=current_round())
    answer = location.submit(put)
    if location.pipelining:
        pointer = PointerTensor.promise(location, put.object_id, answer)
    else:
        pointer = PointerTensor.point(location, answer.wait())
    if tensor.is_leaf and tensor.grad is not None:
        location.known_gradients.note(put.object_id, has_gradient=True)
    return pointer
