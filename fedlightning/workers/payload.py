"""How many bytes an object would take on the wire. Encoding it is the transport's part."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset, TensorDataset

from fedlightning.workers.contents import module_tensors


@singledispatch
def payload_bytes(value: Any) -> int:
    """Count the bytes of an object's payload, as it would be sent.

    A type of a layer above registers itself: ``@payload_bytes.register``.

    Args:
        value: Tensors count their elements, modules their parameters and buffers, optimizers the tensors of
            their state, containers their items; whatever has no known payload counts 0.

    Returns:
        The size in bytes.

    Example:
        >>> payload_bytes(torch.zeros(10)), payload_bytes(nn.Linear(3, 1)), payload_bytes({"loss": 0.5})
        (40, 16, 12)
    """
    return 0


@payload_bytes.register
def _(value: Tensor) -> int:
    return value.numel() * value.element_size()


@payload_bytes.register
def _(value: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module_tensors(value))


@payload_bytes.register
def _(value: torch.optim.Optimizer) -> int:
    return sum(payload_bytes(list(state.values())) for state in value.state.values())


@payload_bytes.register
def _(value: TensorDataset) -> int:
    return payload_bytes(value.tensors)


@payload_bytes.register
def _(value: Subset) -> int:  # type: ignore[type-arg]  # singledispatch needs the bare class
    size = len(value.dataset)  # type: ignore[arg-type]  # a data set that can be indexed has a length
    return payload_bytes(value.dataset) * len(value.indices) // max(size, 1)


@payload_bytes.register(bool)
@payload_bytes.register(int)
@payload_bytes.register(float)
def _(value: float) -> int:
    return 8


@payload_bytes.register(str)
@payload_bytes.register(bytes)
def _(value: str | bytes) -> int:
    return len(value)


@payload_bytes.register(list)
@payload_bytes.register(tuple)
@payload_bytes.register(set)
@payload_bytes.register(frozenset)
def _(value: Any) -> int:
    return sum(map(payload_bytes, value))


@payload_bytes.register(Mapping)
def _(value: Mapping[Any, Any]) -> int:
    return sum(payload_bytes(key) + payload_bytes(item) for key, item in value.items())
