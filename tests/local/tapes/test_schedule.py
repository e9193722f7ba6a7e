"""Updates are made right after the last look at what they change, and never before what may raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedlightning.local.tapes.calls import Call
from fedlightning.local.tapes.recorder import Recorder
from fedlightning.local.tapes.schedule import updates_early
from fedlightning.local.tapes.tape import Tape


def tape_of(step: Callable[[Tensor], Tensor], x: Tensor, *places: Tensor) -> Tape:
    with Recorder([x], places) as recorder:
        output = step(x)
    tape = recorder.tape([output])
    assert tape is not None, recorder.why_not
    return tape


def names_of(tape: Tape) -> list[str]:
    """Return the operators of a tape, in order."""
    names = []
    for call in tape._calls:
        called: Any = call
        names.append(str(called.func).removeprefix("aten."))
    return names


def test_an_update_follows_the_last_look_at_what_it_changes() -> None:
    first, second = torch.randn(4, 4), torch.randn(4, 4)

    def step(x: Tensor) -> Tensor:
        hidden = x @ first
        outer = torch.tanh(hidden @ second)
        inner = outer @ second.T
        loss = (inner * inner).sum(0)
        second.addmm_(hidden.T, outer, alpha=-0.1)
        first.addmm_(x.T, inner, alpha=-0.1)
        return loss

    x, before = torch.randn(3, 4), (first.clone(), second.clone())
    tape = tape_of(step, torch.randn(3, 4), first, second)
    passes = ["mm.out", "mm.out", "tanh.out", "mm.out"]
    assert names_of(tape) == [*passes, "addmm_.default", "addmm_.default", "mul.out", "sum.IntList_out"]
    left = []
    for take in (lambda: step(x), lambda: (tape.inputs[0].copy_(x), tape.play())):
        first.copy_(before[0])
        second.copy_(before[1])
        take()
        left.append((first.clone(), second.clone()))
    assert torch.equal(left[0][0], left[1][0])
    assert torch.equal(left[0][1], left[1][1])


RAISING: dict[str, Callable[[Tensor], Tensor]] = {
    "index": lambda x: torch.ones(2).gather(0, x.long()),
    "class": lambda x: F.nll_loss(torch.ones(3, 2), x.long()),
    "probability": lambda x: F.binary_cross_entropy(x, torch.ones(3)),
    "assertion": lambda x: (torch._assert_async(x.sum() < 3), x)[1],
}


@pytest.mark.parametrize("name", RAISING)
def test_a_step_that_raises_has_changed_nothing(name: str) -> None:
    place = torch.zeros(3)

    def step(x: Tensor) -> Tensor:
        doubled = x * 2
        looked = RAISING[name](x)
        place.add_(doubled)
        return looked * 1

    tape = tape_of(step, torch.zeros(3), place)
    place.zero_()
    tape.inputs[0].fill_(2.0)
    with pytest.raises((RuntimeError, IndexError)):
        tape.play()
    assert place.tolist() == [0, 0, 0]


def test_updates_wait_for_no_gradient_of_pooling_by_maxima() -> None:
    weight = torch.randn(4, 4)

    def step(x: Tensor) -> Tensor:
        images = (x @ weight).view(1, 1, 4, 4).requires_grad_()
        pooled = F.max_pool2d(images, 2)
        update = weight * 0.5
        (gradient,) = torch.autograd.grad(pooled.sum(), images)
        weight.sub_(update)
        return gradient

    names = names_of(tape_of(step, torch.randn(4, 4), weight))
    assert names.index("sub_.Tensor") < names.index("max_pool2d_with_indices_backward.grad_input")


def test_each_call_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [torch.randn(2, 2) for _ in range(5)]
    with Recorder([x := torch.randn(2, 2)], weights) as recorder:
        products = [x @ weight for weight in weights]
        for weight, product in zip(weights, products, strict=True):
            weight.sub_(product)
    looks: list[Call] = []
    reads: Any = Call.reads
    monkeypatch.setattr(Call, "reads", property(lambda call: looks.append(call) or reads.fget(call)))
    ordered = updates_early(recorder._calls)
    assert len(looks) == len(ordered) == 10
    assert [call.nature.writes for call in ordered] == [False, True] * 5
