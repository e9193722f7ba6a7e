"""Pointers: names for objects that live at workers, and the messages about them."""

from fedlightning.pointers.errors import (
    HiddenValueError,
    MixedLocationsError,
    PointerError,
    StalePointerError,
    UnsupportedOperationError,
)
from fedlightning.pointers.factories import FactoriesAt
from fedlightning.pointers.ids import new_id
from fedlightning.pointers.modules import get_module, move_module, send_module
from fedlightning.pointers.objects import ObjectPointer
from fedlightning.pointers.tensor import PointerTensor

__all__ = [
    "FactoriesAt",
    "HiddenValueError",
    "MixedLocationsError",
    "ObjectPointer",
    "PointerError",
    "PointerTensor",
    "StalePointerError",
    "UnsupportedOperationError",
    "get_module",
    "move_module",
    "new_id",
    "send_module",
]
