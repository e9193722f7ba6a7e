"""Make the right pointer for what a worker describes."""

from __future__ import annotations

from typing import Any

from fedlightning.pointers.adjusting import adjust_torch
from fedlightning.pointers.handle import Handle
from fedlightning.pointers.location import Location
from fedlightning.pointers.messages import ObjectDescription, TensorDescription
from fedlightning.pointers.objects import ObjectPointer
from fedlightning.pointers.tensor import PointerTensor


def point_at(location: Location, description: Any, *, owned: bool = True) -> Any:
    """Make a pointer to an object that a worker has described.

    Args:
        location: The worker.
        description: Its answer, a `TensorDescription` or an `ObjectDescription`.
        owned: Whether the object goes when the pointer goes.

    Returns:
        A `PointerTensor` for a tensor, an `ObjectPointer` for anything else.
    """
    if isinstance(description, TensorDescription):
        adjust_torch()
        return PointerTensor.point(location, description, owned)
    if not isinstance(description, ObjectDescription):
        raise TypeError(f"worker {location.id!r} described an object as {description!r}")
    handle = Handle(location, description.object_id, owned)
    return ObjectPointer(handle, description.type_name, description.tags, description.description)
