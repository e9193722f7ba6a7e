"""Which tensors an object holds. How many bytes they are on the wire is for `payload` to say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

PLAIN = (str, bytes, int, float, complex, type(None))
"""Values that are what they are, without parts."""

_CODE = (
    type, FunctionType, BuiltinFunctionType, ModuleType, torch.dtype, torch.device, torch.Generator
)  # fmt: skip
_SEQUENCES = (list, tuple, set, frozenset)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Find the tensors that an object leads to, each once, with the gradients of leaves.

    Containers, modules, optimizers and the attributes of other objects are looked through. Of a module only
    its tensors and containers of tensors are: it may also know the whole of a training run.

    Args:
        value: Any object.

    Yields:
        Tensors.
    """
    return (part for part in parts_of(value) if isinstance(part, Tensor))


def parts_of(value: Any) -> Iterator[Any]:
    """Find the tensors and plain values that an object leads to, as `tensors_in` does.

    Args:
        value: Any object.

    Yields:
        Tensors, each once, and plain values such as numbers, each as often as it is there.
    """
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, PLAIN):
            yield item
        elif isinstance(item, _CODE) or id(item) in seen:
            continue
        elif isinstance(item, Tensor):
            seen.add(id(item))
            yield item
            if (item.is_leaf or item.retains_grad) and item.grad is not None:
                waiting.append(item.grad)
        else:
            seen.add(id(item))
            waiting.extend(_inside(item))


def module_tensors(module: nn.Module) -> list[Tensor]:
    """List a module's parameters and buffers, each once, in no order to rely on.

    Modules are looked through at every visit: `parameters()` and `buffers()` would make a name for each
    tensor, and ask torchmetrics for their hash, which they compute from all that they hold.

    Args:
        module: Any module.
    """
    tensors: dict[int, Tensor] = {}
    seen: set[int] = set()
    waiting = [module]
    while waiting:
        item = waiting.pop()
        if id(item) not in seen:
            seen.add(id(item))
            own = (*item._parameters.values(), *item._buffers.values())
            tensors.update((id(tensor), tensor) for tensor in own if tensor is not None)
            waiting.extend(child for child in item._modules.values() if child is not None)
    return list(tensors.values())


def _inside(item: Any) -> Iterable[Any]:
    if isinstance(item, nn.Module):
        return _tensors_of_module(item)
    if isinstance(item, Mapping):
        return [*item.keys(), *item.values()]
    return item if isinstance(item, _SEQUENCES) else _attributes(item)


def _tensors_of_module(module: nn.Module) -> Iterator[Tensor]:
    seen: set[int] = set()
    waiting: list[Any] = [vars(part) for part in module.modules()]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, (Mapping, *_SEQUENCES)) and id(item) not in seen:
            seen.add(id(item))
            waiting.extend(item.values() if isinstance(item, Mapping) else item)


def _attributes(item: Any) -> Iterator[Any]:
    yield from getattr(item, "__dict__", {}).values()
    for kind in type(item).__mro__:
        slots = vars(kind).get("__slots__", ())
        names = (slots,) if isinstance(slots, str) else slots
        yield from (getattr(item, name) for name in names if hasattr(item, name))
