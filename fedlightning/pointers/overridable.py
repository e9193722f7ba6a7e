"""Functions of torch that are written in Python and not overridable, though they have to be: made so here.

They make a tensor on their way, on the device of their argument, and mix it with that. On pointers such a
function runs as one operation at the worker, where what it makes is made as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.overrides import handle_torch_function

from fedlightning.pointers.arguments import handle_of

_MASKED = ("mean", "std", "var")  # they divide by a count of elements that they make themselves


def _overridable(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        pointers = [value for value in (*args, *kwargs.values()) if handle_of(value) is not None]
        if pointers:
            return handle_torch_function(call, pointers, *args, **kwargs)
        return function(*args, **kwargs)

    return call


MADE_OVERRIDABLE: dict[str, Callable[..., Any]] = {
    f"torch.masked.{name}": _overridable(getattr(torch.masked, name)) for name in _MASKED
}
"""The functions by the names under which messages ask for them. On local tensors they do what they did."""


def make_overridable() -> None:
    """Put the functions in the place of torch's own; again has no effect."""
    for name in _MASKED:
        setattr(torch.masked, name, MADE_OVERRIDABLE[f"torch.masked.{name}"])
