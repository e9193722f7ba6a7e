"""Ways to make an ordinary call hostile: one argument changed at a time, then several at random."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from tests.workers.hostile.samples import Call

RANDOM_MIXTURES = 20
WHOLE_NUMBERS = (-1, -2, 0, 1, 3, 7, 100, 2**31 - 1, 2**31, -(2**31), 2**62, -(2**63))
NUMBERS = (float("nan"), float("inf"), -1.0, 0.0, 1e308)
POSITIONS = (-1, 5, 10**6, -(10**12), 2**62)
TYPES = (torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64, torch.float16)


def mutated(call: Call) -> Iterator[tuple[str, Call]]:
    """Yield hostile variants of a call, each with what was done to it; the call itself comes first."""
    leaves, structure = tree_flatten((call.args, call.kwargs))
    choices = [list(_variants(leaf)) for leaf in leaves]
    yield "as it is", call

    def with_leaves(changed: list[Any]) -> Call:
        args, kwargs = tree_unflatten(changed, structure)
        return Call(call.operation, args, kwargs)

    for position, variants in enumerate(choices):
        for what, variant in variants:
            yield f"{position}: {what}", with_leaves([*leaves[:position], variant, *leaves[position + 1 :]])
    yield from _with_lists_cut(call)
    source = random.Random(call.operation)
    for _ in range(RANDOM_MIXTURES if sum(map(bool, choices)) > 1 else 0):
        changed, said = list(leaves), []
        for position, variants in enumerate(choices):
            if variants and source.random() < 0.5:
                what, changed[position] = source.choice(variants)
                said.append(f"{position}: {what}")
        yield "; ".join(said), with_leaves(changed)


def _variants(leaf: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(leaf, Tensor):
        yield from _variants_of_tensor(leaf.detach())
        yield "None", None
    elif isinstance(leaf, bool):
        yield f"{not leaf}", not leaf
    elif isinstance(leaf, int):
        yield from (
            (str(number), number) for number in (*WHOLE_NUMBERS, leaf + 1, leaf * 1000) if number != leaf
        )
    elif isinstance(leaf, float):
        yield from ((str(number), number) for number in NUMBERS)
    elif leaf is None:
        yield "a tensor", torch.ones(3)


def _variants_of_tensor(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if tensor.layout is not torch.strided:
        return
    yield "0-dimensional", tensor.new_zeros(())
    yield "one more dimension", tensor.unsqueeze(0)
    yield "flat", tensor.flatten()
    yield "one number", tensor.new_ones(1)
    yield "three numbers", tensor.new_ones(3)
    for dim, size in enumerate(tensor.shape):
        yield f"empty in {dim}", tensor.narrow(dim, 0, 0)
        if size > 1:
            yield f"shorter in {dim}", tensor.narrow(dim, 0, 1).clone()
        if size:
            yield f"longer in {dim}", torch.cat([tensor] * 3, dim)
    if tensor.dim() > 1:
        yield "transposed", tensor.transpose(0, -1)
    if tensor.numel():
        yield "without strides", tensor.new_ones(()).expand(tensor.shape)
        yield "spread over memory", tensor.new_zeros((*tensor.shape, 3))[..., 0].copy_(tensor)
    yield from ((str(dtype), tensor.to(dtype)) for dtype in TYPES if dtype is not tensor.dtype)
    if tensor.dtype in (torch.int64, torch.int32):
        for number in POSITIONS:
            if -(2**31) <= number < 2**31 or tensor.dtype is torch.int64:
                yield f"all {number}", torch.full_like(tensor, number)
    elif tensor.is_floating_point():
        yield "all nan", torch.full_like(tensor, float("nan"))
        yield "all inf", torch.full_like(tensor, float("inf"))


def _with_lists_cut(call: Call) -> Iterator[tuple[str, Call]]:
    for position, value in enumerate(call.args):
        if isinstance(value, (list, tuple)) and value:
            for what, other in (
                ("without its last item", value[:-1]),
                ("empty", value[:0]),
                ("with its last item twice", (*value, value[-1])),
            ):
                args = (*call.args[:position], type(value)(other), *call.args[position + 1 :])
                yield f"list {position} {what}", Call(call.operation, args, call.kwargs)
