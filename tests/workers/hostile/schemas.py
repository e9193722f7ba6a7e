"""Calls made up from an operator's declaration, for operations that torch has no samples of."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch

from tests.workers.hostile.samples import Call

CALLS_PER_SCHEMA = 150
_WHOLE_NUMBERS = (-1, 0, 1, 2, 3, 2**31, -(2**63))


def made_up(operation: str) -> list[Call]:
    """Return calls with arguments of the declared types, few of which are ordinary ones.

    Args:
        operation: Name on the allow-list; of one that is no operator, no calls are made up.
    """
    source = random.Random(operation)
    name = operation.rpartition(".")[2]
    return [
        call
        for schema in torch._C._jit_get_schemas_for_operator(f"aten::{name}")
        if not any(argument.is_out for argument in schema.arguments)
        for call in _calls(operation, schema, source)
    ]


def _calls(operation: str, schema: Any, source: random.Random) -> Iterator[Call]:
    positional = [argument for argument in schema.arguments if not argument.kwarg_only]
    named = [argument for argument in schema.arguments if argument.kwarg_only]
    for _ in range(CALLS_PER_SCHEMA):
        args = tuple(_value(str(argument.type), source) for argument in positional)
        kwargs = {argument.name: _value(str(argument.type), source) for argument in named}
        yield Call(operation, args, {name: value for name, value in kwargs.items() if value is not None})


def _value(kind: str, source: random.Random) -> Any:
    if kind.startswith("Optional["):
        return None if source.random() < 0.5 else _value(kind[len("Optional[") : -1], source)
    if kind.startswith("List["):
        return [_value(kind[len("List[") : -1], source) for _ in range(source.randrange(4))]
    makers = {
        "Tensor": lambda: _tensor(source),
        "int": lambda: source.choice(_WHOLE_NUMBERS),
        "float": lambda: source.choice((0.5, 1.0, -1.0, float("nan"))),
        "number": lambda: source.choice((0, 1, 0.5, -3)),
        "bool": lambda: source.random() < 0.5,
        "str": lambda: source.choice(("mean", "sum", "none", "max", "ij")),
    }
    return makers.get(kind, lambda: None)()


def _tensor(source: random.Random) -> torch.Tensor:
    shape = source.choice(
        ((), (0,), (1,), (3,), (3,), (2, 3), (3, 3), (2, 3, 4), (1, 2, 4, 4), (1, 1, 2, 4, 4))
    )
    kind = source.choice((torch.float32, torch.float32, torch.float32, torch.int64, torch.int32, torch.bool))
    generator = torch.Generator().manual_seed(source.randrange(1000))
    return (torch.rand(shape, generator=generator) * 6 - 2).to(kind)
