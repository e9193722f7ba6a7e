"""Gradients are computed from the data: wherever one is left, it is as private as what it came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedlightning.pointers import PointerTensor
from fedlightning.pointers.messages import Ref
from fedlightning.workers import Worker
from tests.workers.attacks.expecting import ask, stays


@pytest.fixture
def leaf(guard: Worker) -> Tensor:
    pointer: Tensor = guard.send(torch.ones(6, requires_grad=True))
    return pointer


@pytest.mark.parametrize("fetch", [lambda leaf: leaf.grad, lambda leaf: leaf.grad * 2, lambda leaf: leaf])
def test_of_a_leaf(leaf: Tensor, secret: Tensor, fetch: Callable[[Tensor], Tensor]) -> None:
    (leaf * secret).sum().backward()
    with stays():
        fetch(leaf).get()


def test_accumulated_into_one_that_was_public(leaf: Tensor, secret: Tensor) -> None:
    leaf.sum().backward()
    before = leaf.grad
    (leaf * secret).sum().backward()
    with stays():
        before.get()


def test_assigned(guard: Worker, leaf: Tensor, secret: Tensor) -> None:
    leaf.grad = secret
    with stays():
        leaf.get()


@pytest.mark.parametrize("fetch", [lambda q: q.grad, lambda q: q.grad + 0, lambda q: q])
def test_retained_by_an_intermediate_tensor(
    leaf: Tensor, secret: Tensor, fetch: Callable[[Tensor], Tensor]
) -> None:
    middle = leaf * 1
    middle.retain_grad()
    (middle * secret).sum().backward()
    with stays():
        fetch(middle).get()


def test_retained_and_found_again_by_way_of_a_view(guard: Worker, leaf: Tensor, secret: Tensor) -> None:
    middle = leaf * 1
    middle.retain_grad()
    view = middle.view(2, 3)
    (middle * secret).sum().backward()
    del middle
    base = view._base
    assert base is not None
    description = ask(guard, "torch.Tensor.grad.__get__", Ref(base.id_at_location))
    with stays():
        PointerTensor.point(guard, description).get()


def test_reached_by_a_gradient_that_is_given(leaf: Tensor, secret: Tensor) -> None:
    (leaf * 1).backward(secret)
    with stays():
        leaf.grad.get()


def test_of_chosen_inputs(leaf: Tensor, secret: Tensor) -> None:
    (leaf * secret).sum().backward(inputs=[leaf])
    with stays():
        leaf.grad.get()


def test_computed_by_autograd_grad(leaf: Tensor, secret: Tensor) -> None:
    (gradient,) = torch.autograd.grad((leaf * secret).sum(), leaf)
    with stays():
        gradient.get()


def test_of_a_gradient(leaf: Tensor, secret: Tensor) -> None:
    (gradient,) = torch.autograd.grad((leaf**3 * secret).sum(), leaf, create_graph=True)
    gradient.sum().backward()
    with stays():
        leaf.grad.get()


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.1, foreach=False),
        lambda p: torch.optim.Adam(p, lr=0.1, foreach=True),
        lambda p: torch.optim.Adagrad(p, lr=0.1),
        lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.5),
    ],
)
def test_in_weights_and_optimizer_states(guard: Worker, secret: Tensor, make: Any) -> None:
    module = nn.Linear(6, 1)
    optimizer = make(module.parameters())
    module.send(guard)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=False)
        module(secret).sum().backward()
        optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    remote = [value for value in states if isinstance(value, Tensor) and value.dim() > 0]
    assert remote
    for tensor in (module.weight, module.bias, *remote):
        with stays():
            tensor.get()


def test_clipped_and_measured(guard: Worker, secret: Tensor) -> None:
    module = nn.Linear(6, 1)
    module.send(guard)
    module(secret).sum().backward()
    norm = nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    with stays():
        norm.get()
