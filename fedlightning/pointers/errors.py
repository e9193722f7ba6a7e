"""What can be wrong with the use of a pointer. What goes wrong at a worker is told by the workers' errors."""

from __future__ import annotations


class PointerError(RuntimeError):
    """Tell that pointers were used in a way that cannot work."""


class StalePointerError(PointerError):
    """Tell that a pointer's object has left its worker or was deleted there."""


class MixedLocationsError(PointerError):
    """Tell that one operation was asked of objects in different places."""


class HiddenValueError(PointerError):
    """Tell that an operation would reveal a remote value without `.get()`."""


class UnsupportedOperationError(PointerError):
    """Tell that an operation is not offered on pointers."""
