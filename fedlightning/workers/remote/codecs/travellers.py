"""Modules and optimizers that go to a worker and come back as the objects they were: numbered, not copied.

The controller numbers what it sends, and the number comes back with the new state. A worker keeps a module
that leaves as a shell for its next visit: building one anew costs more than copying its state, and what is
kept by parameter, such as momentum, would be lost with the parameters.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import count
from typing import Any, Protocol
from weakref import WeakValueDictionary

from typing_extensions import override


class Travellers(Protocol):
    """Know the objects that go back and forth."""

    def number(self, value: Any) -> int | None:
        """Return the number of an object that is about to be sent; None if it has none on this side."""

    def is_known_there(self, value: Any) -> bool:
        """Tell whether the other side has this object already, and needs its state only."""

    def find(self, number: Any, blueprint: Any) -> Any:
        """Return the object of a number, if there is one here that was built like this; else None."""

    def arrived(self, number: int, blueprint: Any, value: Any) -> None:
        """Note an object that had to be built."""


class Numbered:
    """Give objects numbers, without keeping them alive."""

    def __init__(self) -> None:
        self._objects: WeakValueDictionary[int, Any] = WeakValueDictionary()
        # By identity: a metric's hash changes with its state.
        self._numbers: dict[int, int] = {}

    def number_of(self, value: Any) -> int | None:
        """Return an object's number; None if it has none."""
        number = self._numbers.get(id(value))
        # Another object may have got the identity of one that is gone.
        return number if number is not None and self._objects.get(number) is value else None

    def find(self, number: int) -> Any:
        """Return the object of a number, if it is still alive; else None."""
        return self._objects.get(number)

    def enter(self, number: int, value: Any) -> None:
        """Give an object a number."""
        if len(self._numbers) > 2 * len(self._objects) + 16:
            self._numbers = {id(known): key for key, known in self._objects.items()}
        self._objects[number] = value
        self._numbers[id(value)] = number


class OwnObjects(Travellers):
    """Be the controller's side: what is sent gets a number, and comes back into the same object."""

    def __init__(self) -> None:
        self._known = Numbered()
        self._next = count()

    @override
    def number(self, value: Any) -> int:
        number = self._known.number_of(value)
        if number is None:
            number = next(self._next)
            self._known.enter(number, value)
        return number

    @override
    def is_known_there(self, value: Any) -> bool:
        # The worker keeps few shells and may have let go of this one.
        return False

    @override
    def find(self, number: Any, blueprint: Any) -> Any:
        return self._known.find(number)

    @override
    def arrived(self, number: int, blueprint: Any, value: Any) -> None:
        """Do nothing: what a worker has made belongs to nobody here yet."""


class Guests(Travellers):
    """Be the worker's side.

    Args:
        capacity: How many modules are kept as shells; the one that was not here for the longest goes first.
    """

    def __init__(self, capacity: int = 4) -> None:
        self._known = Numbered()
        self._capacity = capacity
        self._shells: OrderedDict[int, tuple[Any, Any]] = OrderedDict()

    @override
    def number(self, value: Any) -> int | None:
        return self._known.number_of(value)

    @override
    def is_known_there(self, value: Any) -> bool:
        return self._known.number_of(value) is not None

    @override
    def find(self, number: Any, blueprint: Any) -> Any:
        known, value = self._shells.get(number, (None, None))
        if value is None or known != blueprint:
            return None
        self._shells.move_to_end(number)
        return value

    @override
    def arrived(self, number: int, blueprint: Any, value: Any) -> None:
        self._known.enter(number, value)
        self._shells[number] = (blueprint, value)
        self._shells.move_to_end(number)
        while len(self._shells) > self._capacity:
            self._shells.popitem(last=False)


class Strangers(Travellers):
    """Know nothing: what is sent is built anew on the other side."""

    @override
    def number(self, value: Any) -> None:
        return None

    @override
    def is_known_there(self, value: Any) -> bool:
        return False

    @override
    def find(self, number: Any, blueprint: Any) -> None:
        return None

    @override
    def arrived(self, number: int, blueprint: Any, value: Any) -> None:
        """Do nothing."""
