"""The private entry to autograd's engine does what the public one does; if upstream moves, this fails."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from fedlightning.local.engine import GradModeOff, backward, gradients_of


def _loss(net: nn.Module) -> Tensor:
    return net(torch.ones(3, 4)).pow(2).mean()


def test_gradients_are_those_of_the_public_call_to_the_bit() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    unused = torch.ones(2, requires_grad=True)
    tensors = [*net.parameters(), unused]
    expected = torch.autograd.grad(_loss(net), tensors, allow_unused=True)
    found = gradients_of(_loss(net), tensors)
    assert found[-1] is expected[-1] is None
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found[:-1], expected[:-1], strict=True))
    assert all(tensor.grad is None for tensor in tensors)


def test_backward_accumulates_as_the_public_call_does() -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    theirs = deepcopy(ours)
    for _ in range(2):
        backward(_loss(ours))
        torch.autograd.backward(_loss(theirs))
    assert all(
        torch.equal(one.grad, other.grad)
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True)
        if one.grad is not None and other.grad is not None
    )
    assert all(parameter.grad is not None for parameter in ours.parameters())


def test_a_hook_that_writes_to_a_losss_gradient_does_so_for_its_own_loss_only() -> None:
    torch.manual_seed(0)
    net = nn.Linear(4, 5)
    parameters = list(net.parameters())
    expected = gradients_of(_loss(net), parameters)
    doubled = _loss(net)
    doubled.register_hook(lambda gradient: gradient.mul_(2))
    found = gradients_of(doubled, parameters)
    again = gradients_of(_loss(net), parameters)
    for first, twice, last in zip(expected, found, again, strict=True):
        assert first is not None
        assert twice is not None
        assert last is not None
        assert torch.equal(twice, 2 * first)
        assert torch.equal(last, first)


def test_the_graph_is_freed() -> None:
    net = nn.Linear(4, 5)
    loss = _loss(net)
    gradients_of(loss, list(net.parameters()))
    with pytest.raises(RuntimeError, match="second time"):
        gradients_of(loss, list(net.parameters()))


@pytest.mark.parametrize(
    "loss", [torch.ones(2, requires_grad=True) * 2, torch.ones(()), torch.ones((), dtype=torch.cfloat) * 1j]
)
def test_what_is_no_loss_is_refused_as_by_the_public_call(loss: Tensor) -> None:
    parameter = torch.ones((), requires_grad=True)
    with pytest.raises(RuntimeError) as theirs:
        torch.autograd.grad(loss, [parameter], allow_unused=True)
    with pytest.raises(RuntimeError) as ours:
        gradients_of(loss, [parameter])
    assert str(ours.value) == str(theirs.value)
    with pytest.raises(RuntimeError):
        backward(loss)


@pytest.mark.parametrize("before", [True, False])
def test_the_mode_is_off_within_the_block_and_as_before_after_it(before: bool) -> None:
    with torch.set_grad_enabled(before):
        with GradModeOff():
            assert not torch.is_grad_enabled()
        assert torch.is_grad_enabled() is before
        with pytest.raises(ZeroDivisionError), GradModeOff():
            raise ZeroDivisionError
        assert torch.is_grad_enabled() is before
