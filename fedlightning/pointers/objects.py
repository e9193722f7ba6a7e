"""Pointers to whatever is not a tensor: modules, data sets, optimizers. Pointers to tensors compute."""

from __future__ import annotations

from typing import Any

from fedlightning.pointers import naming
from fedlightning.pointers.errors import UnsupportedOperationError
from fedlightning.pointers.handle import Handle
from fedlightning.pointers.html import as_table
from fedlightning.pointers.location import Location, controller
from fedlightning.pointers.messages import Delete, Get
from fedlightning.pointers.moving import move_object
from fedlightning.pointers.rounds import current_round


class ObjectPointer:
    """Point to an object at a worker, to be given to programs that run there.

    Args:
        handle: Ownership of the object; it goes when its last pointer goes.
        type_name: The object's type, for people.
        tags: The object's tags.
        description: The object's description.

    Example:
        >>> import torch
        >>> from fedlightning.workers import VirtualWorker
        >>> bob = VirtualWorker(id="bob")
        >>> pointer = bob.send({"ages": torch.tensor([34.0, 58.0])}, tags=("#ages",))
        >>> pointer.type_name, pointer.tags
        ('dict', ('#ages',))
        >>> pointer.get()
        {'ages': tensor([34., 58.])}
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
        """The worker that holds this pointer: the controller's, named ``me``."""
        return self._handle.owner

    def get(self) -> Any:
        """Bring the object back, if the worker's policy lets it leave; the pointer is spent.

        Returns:
            The object.

        Raises:
            StalePointerError: It was fetched or deleted before.
            RefusedByPolicy: It may not leave.
        """
        return fetch(self._handle)

    def move(self, location: Location) -> ObjectPointer:
        """Let the object's worker hand it over to another one; this pointer is spent.

        Args:
            location: The worker to bring it to.

        Returns:
            A pointer to it, this one if it is there already.

        Raises:
            UnsupportedOperationError: The workers do not reach each other directly.
            RefusedByPolicy: It may not go there.
        """
        if location is self.location:
            return self
        if location is controller() or not self.location.reaches(location):
            raise UnsupportedOperationError(
                f"{self.location.id!r} hands nothing to {location.id!r} directly: .get() brings the object "
                f"here, and {location.id}.send(...) there"
            )
        owned = self._handle.owned
        handle = Handle(location, move_object(self._handle, location).object_id, owned)
        return ObjectPointer(handle, self.type_name, self.tags, self.description)

    def tag(self, *tags: str) -> ObjectPointer:
        """Give the object tags, beside those it has.

        Args:
            *tags: Words that `search` finds it by.

        Returns:
            This pointer.

        Raises:
            RefusedByPolicy: It is a data owner's, or was computed from what is: rules go by its tags.
        """
        self.tags = naming.add_tags(self._handle, tags).tags
        return self

    def describe(self, description: str) -> ObjectPointer:
        """Describe the object, for people and for the ledger.

        Args:
            description: In place of what was said before.

        Returns:
            This pointer.

        Raises:
            RefusedByPolicy: It is a data owner's, or was computed from what is.
        """
        naming.describe(self._handle, description)
        self.description = description
        return self

    def __repr__(self) -> str:
        return f"[ObjectPointer | {self._handle}: {self.type_name}]"

    def _repr_html_(self) -> str:
        facts = {"at": self.location.id, "object": self.id_at_location, "type": self.type_name}
        facts |= {"tags": ", ".join(self.tags), "description": self.description}
        return as_table("ObjectPointer", facts)


def fetch(handle: Handle) -> Any:
    """Bring the object of a handle here; the worker holds it no longer."""
    ref = handle.use()
    value = handle.location.submit(Get(ref.object_id, current_round())).wait()
    handle.retire("was fetched by .get()")
    if isinstance(inner := getattr(value, "_handle", None), Handle):
        inner.held_by(None)
    return value


def discard(handle: Handle) -> None:
    """Delete the object of a handle at its worker."""
    ref = handle.use()
    handle.location.submit(Delete((ref.object_id,), current_round())).wait()
    handle.retire("was deleted")
