"""Pointers to whatever is not a tensor: modules, data sets, optimizers. Pointers to tensors compute."""

from __future__ import annotations

from typing import Any

from fedlightning.pointers.handle import Handle
from fedlightning.pointers.location import Location, controller
from fedlightning.pointers.messages import Delete, Get
from fedlightning.pointers.rounds import current_round


class ObjectPointer:
    """Point to an object at a worker, to be given to programs that run there.

    Args:
        handle: Ownership of the object; it goes when its last pointer goes.
        type_name: The object's type, for people.
        tags: The object's tags.
        description: The object's description.
    """

    __slots__ = ("__weakref__", "_handle", "description", "tags", "type_name")

    def __init__(
        self, handle: Handle, type_name: str = "object", tags: tuple[str, ...] = (), description: str = ""
    ) -> None:
        self._handle = handle
        self.type_name = type_name
        self.tags = tags
        self.description = description

    @property
    def id(self) -> int:
        """The pointer's own identifier."""
        return self._handle.id

    @property
    def id_at_location(self) -> int:
        """The object's identifier at its worker."""
        return self._handle.ref.object_id

    @property
    def location(self) -> Location:
        """The worker that holds the object."""
        return self._handle.location

    @property
    def owner(self) -> Location:
        """The worker that holds this pointer."""
        return controller()

    def get(self) -> Any:
        """Bring the object back, if the worker's policy lets it leave; the pointer is spent.

        Returns:
            The object.

        Raises:
            StalePointerError: It was fetched or deleted before.
            RefusedByPolicy: It may not leave.
        """
        return fetch(self._handle)

    def __repr__(self) -> str:
        return f"[ObjectPointer | {self._handle}: {self.type_name}]"


def fetch(handle: Handle) -> Any:
    """Bring the object of a handle here; the worker holds it no longer."""
    ref = handle.use()
    value = handle.location.submit(Get(ref.object_id, current_round())).wait()
    handle.retire("was fetched by .get()")
    return value


def discard(handle: Handle) -> None:
    """Delete the object of a handle at its worker."""
    ref = handle.use()
    handle.location.submit(Delete((ref.object_id,), current_round())).wait()
    handle.retire("was deleted")
