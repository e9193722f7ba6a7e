"""What a module holds beside numbers, to be compared before and after a step that may change it.

What a step reads, and what that is, is looked at in ``readings``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fedlightning.local.tapes.same import Same

_DEPTH = 3
"""How far containers within containers are looked into: they may hold each other."""


def held_by(module: nn.Module, *, apart: Sequence[nn.Module] = ()) -> list[Any]:
    """Return all that a module and its parts hold, the same things being equal, and what is in containers.

    Args:
        module: The module.
        apart: Parts that may change.
    """
    may_change = {*map(id, apart)}
    # A stand-in for ``log`` is there during steps.
    return [
        (Same(child), [(name, _parts_of(value)) for name, value in vars(child).items() if name != "log"])
        for child in module.modules()
        if id(child) not in may_change
    ]


def _parts_of(value: Any, depth: int = _DEPTH) -> Any:
    if isinstance(value, Mapping) and depth:
        return Same(value), [(name, _parts_of(part, depth - 1)) for name, part in value.items()]
    if isinstance(value, list | tuple | set | frozenset) and depth:
        return Same(value), [_parts_of(part, depth - 1) for part in value]
    if isinstance(value, Tensor):
        return Same(value), value.requires_grad, value.shape, value.grad_fn
    return Same(value)
