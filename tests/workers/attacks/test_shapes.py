"""Shapes are known without asking: one that depends on private values must not come to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedlightning.pointers import PointerTensor
from fedlightning.pointers.messages import Ref
from fedlightning.workers import Worker
from tests.workers.attacks.expecting import ask, is_silent, stays


@pytest.mark.parametrize(
    "shape",
    [
        lambda x: (x > 2).nonzero(),
        lambda x: (x > 2).nonzero(as_tuple=True),
        lambda x: torch.argwhere(x > 2),
        lambda x: torch.where(x > 2),
        lambda x: x.unique(),
        lambda x: x.unique_consecutive(),
        lambda x: x.masked_select(x > 2),
        lambda x: x[x > 2],
        lambda x: torch.ones_like(x)[x > 2],
        lambda x: torch.ones_like(x).repeat_interleave(x.long()),
        lambda x: torch.bincount(x.long()),
        lambda x: F.one_hot(x.long()),
        lambda x: torch.combinations(x[x > 2]),
        lambda x: torch.ones_like(x).tensor_split(x.long().sort()[0]),
        lambda x: torch.linalg.lstsq(x.view(3, 2), x.view(3, 2)).residuals,
    ],
)
def test_of_a_result(secret: Tensor, shape: Callable[[Tensor], Any]) -> None:
    with stays():
        shape(secret)


@pytest.mark.parametrize("mask", ["here", "there"])
def test_one_that_the_controllers_own_mask_decides_is_no_secret(
    guard: Worker, secret: Tensor, mask: str
) -> None:
    chosen = torch.tensor([True, False, True, False, False, True])
    part = secret[chosen if mask == "here" else guard.send(chosen)]
    assert part.shape == (3,)
    with stays():
        part.get()


@pytest.mark.parametrize(
    ("operation", "before"),
    [
        ("torch.zeros", ()),
        ("torch.eye", ()),
        ("torch.arange", ()),
        ("torch.linspace", (0, 1)),
        ("torch.randperm", ()),
        ("torch.Tensor.expand", ("own",)),
        ("torch.Tensor.repeat", ("own",)),
        ("torch.Tensor.chunk", ("own",)),
        ("torch.Tensor.narrow", ("own", 0, 0)),
        ("torch.Tensor.select", ("own", 0)),
        ("torch.as_strided", ("own", (1,), (1,))),
        ("torch.Tensor.new_zeros", ("own",)),
        ("torch.Tensor.resize_", ("own",)),
        ("torch.Tensor.unsqueeze", ("own",)),
    ],
)
def test_that_a_private_number_would_set(
    guard: Worker, own: PointerTensor, secret: Tensor, operation: str, before: tuple[Any, ...]
) -> None:
    number = secret[1].long()
    args = [Ref(own.id_at_location) if value == "own" else value for value in before]
    with stays():
        ask(guard, operation, *args, Ref(number.id_at_location))


def test_that_a_private_number_in_a_list_would_set(guard: Worker, secret: Tensor) -> None:
    number = secret[1].long()
    with stays():
        ask(guard, "torch.zeros", [Ref(number.id_at_location), 2])


def test_that_a_private_slice_would_set(guard: Worker, own: PointerTensor, secret: Tensor) -> None:
    end = secret[1].long()
    with stays():
        ask(guard, "torch.Tensor.__getitem__", Ref(own.id_at_location), slice(None, Ref(end.id_at_location)))


def test_flags_are_values_too(guard: Worker, own: PointerTensor, secret: Tensor) -> None:
    flag = secret[0] > 2
    for operation, args in (("requires_grad_", ()), ("sum", (0,))):
        with is_silent():
            ask(guard, f"torch.Tensor.{operation}", Ref(own.id_at_location), *args, Ref(flag.id_at_location))


def test_sparse_results_would_count_zeros(secret: Tensor) -> None:
    with is_silent():
        secret.to_sparse()
