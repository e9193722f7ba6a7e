"""Ownership of one object at a worker: when the last pointer goes, so does the object. No torch here."""

from __future__ import annotations

from fedlightning.pointers.errors import StalePointerError
from fedlightning.pointers.ids import new_id
from fedlightning.pointers.location import Location, controller, find_place
from fedlightning.pointers.messages import Ref


class Handle:
    """Own one object at a worker, on behalf of all the pointers that share this handle.

    Args:
        location: The worker.
        object_id: The object's identifier there.
        owned: Whether the object goes with the handle; not so for what a data owner registered.
    """

    # The finalizer sits here, not on the pointers, whose implementation may be exchanged with a parameter's.
    __slots__ = ("_holder", "_id", "gone", "location", "owned", "ref")

    def __init__(self, location: Location, object_id: int, owned: bool = True) -> None:
        self.location = location
        self.ref = Ref(object_id)
        self.owned = owned
        self.gone = ""
        self._id = 0
        self._holder: tuple[str, int] | None = None

    @property
    def owner(self) -> Location:
        """The place that holds the pointer: the controller, unless it was sent to a worker.

        Raises:
            StalePointerError: The worker that held it is gone.
        """
        if self._holder is None:
            return controller()
        place = find_place(*self._holder)
        if place is None:
            raise StalePointerError(f"the pointer was held by {self._holder[0]!r}, which is gone")
        return place

    @property
    def id(self) -> int:
        """The pointer's own identifier, drawn when first asked for."""
        if not self._id:
            self._id = new_id()
        return self._id

    def use(self) -> Ref:
        """Return the reference for a message.

        Raises:
            StalePointerError: The object has left the worker.
        """
        if self.gone:
            raise StalePointerError(
                f"object {self.ref.object_id} is no longer at {self.location.id}: it {self.gone}. "
                f"Use the value you got, or send it again."
            )
        return self.ref

    def retire(self, reason: str) -> None:
        """Note that the object has left the worker by an explicit request."""
        self.gone = reason
        self.owned = False

    def held_by(self, holder: tuple[str, int] | None, pointer_id: int = 0) -> None:
        """Note who holds the pointer from now on.

        Args:
            holder: A worker's name and generation; None for the controller.
            pointer_id: The identifier that it has there; 0 to keep its own.
        """
        self._holder = holder
        self._id = pointer_id or self._id

    def __del__(self) -> None:
        if self.owned:
            self.location.release(self.ref.object_id)

    def __str__(self) -> str:
        holder = self._holder[0] if self._holder else controller().id
        return f"{holder}:{self.id} -> {self.location.id}:{self.ref.object_id}"
