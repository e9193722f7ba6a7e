"""Pointers: names for objects that live at workers, and the messages about them."""

from fedlightning.pointers.errors import (
    HiddenValueError,
    MixedLocationsError,
    PointerError,
    StalePointerError,
    UnsupportedOperationError,
)
from fedlightning.pointers.ids import new_id
from fedlightning.pointers.objects import ObjectPointer

__all__ = [
    "HiddenValueError",
    "MixedLocationsError",
    "ObjectPointer",
    "PointerError",
    "StalePointerError",
    "UnsupportedOperationError",
    "new_id",
]
