"""What a module holds beside numbers, to be compared before and after a step that may change it, or put back.

What a step reads, and what that is, is looked at in ``readings``.
"""

from __future__ import annotations

from collections import OrderedDict
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


class HeldBefore:
    """What a module and its parts hold now, to be put back where a step is stopped in its midst.

    A step may set the mode of a part, freeze its tensors or hook into it, and undo that later on.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._held = [(own, own.copy()) for own in map(vars, module.modules())]
        self._parts = [
            (part, part.copy())
            for _, held in self._held
            for part in held.values()
            if type(part) in (dict, OrderedDict, set)
        ]
        self._tensors = [(one, one.requires_grad) for one in (*module.parameters(), *module.buffers())]

    def put_back(self) -> None:
        """Let them hold that again."""
        for own, before in (*self._held, *self._parts):
            own.clear()
            own.update(before)
        for tensor, required in self._tensors:
            if tensor.requires_grad != required:
                tensor.requires_grad_(required)


def _parts_of(value: Any, depth: int = _DEPTH) -> Any:
    if isinstance(value, Mapping) and depth:
        return Same(value), [(name, _parts_of(part, depth - 1)) for name, part in value.items()]
    if isinstance(value, list | tuple | set | frozenset) and depth:
        return Same(value), [_parts_of(part, depth - 1) for part in value]
    if isinstance(value, Tensor):
        return Same(value), value.requires_grad, value.shape, value.grad_fn
    return Same(value)
