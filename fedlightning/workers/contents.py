"""Which tensors an object holds. How many bytes they are on the wire is for `payload` to say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (
    str, bytes, int, float, complex, type(None), type, FunctionType, BuiltinFunctionType, ModuleType,
    torch.dtype, torch.device, torch.Generator,
)  # fmt: skip


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Find the tensors that an object leads to, each once, with the gradients of leaves.

    Containers, modules, optimizers and the attributes of other objects are looked through. Of a module only
    its tensors and containers of tensors are: it may also know the whole of a training run.

    Args:
        value: Any object.

    Yields:
        Tensors.
    """
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, _PLAIN) or id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            yield item
            if (item.is_leaf or item.retains_grad) and item.grad is not None:
                waiting.append(item.grad)
        else:
            waiting.extend(_parts(item))


def _parts(item: Any) -> Iterator[Any]:
    if isinstance(item, nn.Module):
        for module in item.modules():
            for held in vars(module).values():
                inner = (
                    held.values()
                    if isinstance(held, dict)
                    else held
                    if isinstance(held, (list, tuple))
                    else (held,)
                )
                yield from (one for one in inner if isinstance(one, Tensor))
    elif isinstance(item, Mapping):
        yield from item.keys()
        yield from item.values()
    elif isinstance(item, (list, tuple, set, frozenset)):
        yield from item
    else:
        yield from getattr(item, "__dict__", {}).values()
        for kind in type(item).__mro__:
            slots = vars(kind).get("__slots__", ())
            names = (slots,) if isinstance(slots, str) else slots
            yield from (getattr(item, name) for name in names if hasattr(item, name))
