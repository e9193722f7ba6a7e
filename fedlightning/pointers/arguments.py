"""Replace pointers by references in the arguments of a program. Torch operations have stricter rules."""

from __future__ import annotations

from typing import Any

from fedlightning.pointers.errors import MixedLocationsError
from fedlightning.pointers.handle import Handle
from fedlightning.pointers.location import Location


def handle_of(value: object) -> Handle | None:
    """Return the ownership handle of a pointer; None for anything else."""
    handle = getattr(value, "_handle", None)
    return handle if type(handle) is Handle else None


def refer(value: Any, location: Location) -> Any:
    """Replace each pointer in nested tuples, lists and dicts by a reference to its object.

    Args:
        value: Arguments for something that runs at ``location``.
        location: The worker that they go to.

    Returns:
        The same structure, with references; everything else is passed on as it is.

    Raises:
        MixedLocationsError: A pointer leads to another worker.
        StalePointerError: A pointer's object is gone.
    """
    handle = getattr(value, "_handle", None)
    if type(handle) is Handle:
        if handle.location is not location:
            raise MixedLocationsError(_elsewhere(handle, location))
        return handle.use() if handle.gone else handle.ref
    if type(value) in (list, tuple):
        return type(value)([refer(item, location) for item in value])
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(refer(item, location) for item in value))
    if type(value) is dict:
        return {key: refer(item, location) for key, item in value.items()}
    return value


def _elsewhere(handle: Handle, location: Location) -> str:
    if handle.location.id == location.id:
        return (
            f"object {handle.ref.object_id} is at an earlier worker named {location.id!r} "
            f"(generation {handle.location.generation}, now {location.generation}): send it to the new one"
        )
    return (
        f"object {handle.ref.object_id} is at {handle.location.id!r}, but is used at {location.id!r}: "
        f"bring it there with .get().send({location.id})"
    )
