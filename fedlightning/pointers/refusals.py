"""What is not done through a pointer, and why. What is done is listed in `operations`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fedlightning.pointers.errors import HiddenValueError, PointerError, UnsupportedOperationError

_REVEALING = (
    "item",
    "tolist",
    "numpy",
    "is_nonzero",
    "__array__",
    "__array_wrap__",
    "__bool__",
    "__nonzero__",
    "__complex__",
    "__contains__",
    "__float__",
    "__index__",
    "__int__",
    "__long__",
)
_REASONS = {
    "memory addresses and storages mean nothing in another place": (
        "data_ptr",
        "storage",
        "storage_type",
        "untyped_storage",
        "_typed_storage",
        "set_",
        "share_memory_",
        "is_shared",
        "pin_memory",
        "record_stream",
        "__dlpack__",
        "__dlpack_device__",
    ),
    "it would carry code to the worker; register a program and use worker.run": (
        "apply_",
        "map_",
        "map2_",
        "register_hook",
        "register_post_accumulate_grad_hook",
    ),
    "a pointer means nothing in a file or another process: call .get() first": (
        "__reduce_ex__",
        "__setstate__",
    ),
    "its memory would hold whatever was there before; use new_zeros or new_empty": ("new",),
    "forward-mode differentiation is for local tensors; use reverse mode, such as torch.func.jacrev": (
        "_make_dual",
        "_unpack_dual",
    ),
    "it belongs to loading a module's state: load before the module is sent": ("module_load",),
}
_ATTRIBUTES = ("__cuda_array_interface__", "_cdata")


def refused_functions() -> dict[Callable[..., Any], PointerError]:
    """Return the functions that pointers refuse, each with the error to raise."""
    refused: dict[Callable[..., Any], PointerError] = {}
    for name in _REVEALING:
        error = HiddenValueError(f"{name} would reveal the value of a tensor at a worker: call .get() first")
        for function in _forms(name):
            refused[function] = error
    for reason, names in _REASONS.items():
        for name in names:
            for function in _forms(name):
                refused[function] = UnsupportedOperationError(f"{name} is not offered on pointers: {reason}")
    for name in _ATTRIBUTES:
        getter = getattr(Tensor, name).__get__
        refused[getter] = UnsupportedOperationError(
            f"{name} is not offered on pointers: it is a memory address"
        )
    return refused


def _forms(name: str) -> list[Callable[..., Any]]:
    return [getattr(place, name) for place in (Tensor, torch) if hasattr(place, name)]
