"""What pointers ask of the place they point to. The workers above implement it; nothing here knows them."""

from __future__ import annotations

from typing import Any, Protocol
from weakref import WeakValueDictionary

from fedlightning.pointers.known_gradients import KnownGradients
from fedlightning.pointers.messages import Message


class Answer(Protocol):
    """Stand for the outcome of a message that may still be under way."""

    def wait(self) -> Any:
        """Return the worker's answer, or raise what went wrong there."""


class Location(Protocol):
    """Be a place that holds objects and answers messages about them."""

    @property
    def id(self) -> str:
        """The name of the place, unique among those that work together."""

    @property
    def generation(self) -> int:
        """How often a place of this name was started before; pointers of an earlier one are stale."""

    @property
    def pipelining(self) -> bool:
        """Whether messages are sent there without waiting for the answers, for the time being."""

    @property
    def known_gradients(self) -> KnownGradients:
        """Which tensors there have a gradient, as far as the controller knows."""

    def submit(self, message: Message) -> Answer:
        """Send a message without waiting for its answer."""

    def reaches(self, other: Location) -> bool:
        """Tell whether objects and messages can go from here to another place, past the controller."""

    def release(self, object_id: int) -> None:
        """Note that no pointer needs this object any more; called by finalizers, so it takes no lock."""


_controller: list[Location] = []
_places: WeakValueDictionary[tuple[str, int], Location] = WeakValueDictionary()


def note_place(location: Location) -> None:
    """Let a place be found by its name and generation, as long as it lives."""
    _places[location.id, location.generation] = location


def find_place(id: str, generation: int) -> Location | None:
    """Return the living place of this name and generation; None if this process knows none."""
    return _places.get((id, generation))


def check_place(location: object) -> None:
    """Make sure that something is a worker, and not its name.

    Raises:
        TypeError: It is none.
    """
    if not hasattr(location, "submit"):
        raise TypeError(f"{location!r} is no worker: give the worker itself, such as hook.workers['bob']")


def set_controller(location: Location) -> None:
    """Name the place where the pointers of this process live."""
    _controller[:] = [location]


def controller() -> Location:
    """Return the place where the pointers of this process live.

    Raises:
        RuntimeError: No worker of this process was made yet; `fedlightning.workers` makes one on import.
    """
    if not _controller:
        raise RuntimeError(
            "pointers have no owner yet: import fedlightning.workers, which makes the local worker"
        )
    return _controller[0]
