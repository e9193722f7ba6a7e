"""Ownership of one object at a worker: when the last pointer goes, so does the object. No torch here."""

from __future__ import annotations

from fedlightning.pointers.errors import StalePointerError
from fedlightning.pointers.ids import new_id
from fedlightning.pointers.location import Location, controller
from fedlightning.pointers.messages import Ref


class Handle:
    """Own one object at a worker, on behalf of all the pointers that share this handle.

    Args:
        location: The worker.
        object_id: The object's identifier there.
        owned: Whether the object goes with the handle; not so for what a data owner registered.
    """

    # The finalizer sits here, not on the pointers, whose implementation may be exchanged with a parameter's.
    __slots__ = ("_id", "gone", "location", "owned", "ref")

    def __init__(self, location: Location, object_id: int, owned: bool = True) -> None:
        self.location = location
        self.ref = Ref(object_id)
        self.owned = owned
        self.gone = ""
        self._id = 0

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

    def __del__(self) -> None:
        if self.owned:
            self.location.release(self.ref.object_id)

    def __str__(self) -> str:
        return f"{controller().id}:{self.id} -> {self.location.id}:{self.ref.object_id}"
