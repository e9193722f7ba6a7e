"""A gradient whose leaf has left in the meantime is an error when it is computed, and never lost unsaid."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from fedlightning.pointers import PointerError, get_module, send_module
from fedlightning.pointers.lost_gradients import refuse_gradient
from fedlightning.workers import RemoteError, VirtualWorker


def test_a_loss_computed_before_its_module_was_sent(bob: VirtualWorker) -> None:
    module = nn.Linear(2, 1)
    loss = module(torch.ones(1, 2)).sum()
    send_module(module, bob)
    with pytest.raises(PointerError, match=r"was sent to 'bob' after this was computed from it"):
        loss.backward()


def test_a_loss_computed_before_its_module_was_fetched(bob: VirtualWorker) -> None:
    module = send_module(nn.Linear(2, 1), bob)
    loss = module(bob.send(torch.ones(1, 2))).sum()
    get_module(module)
    with pytest.raises(RemoteError, match=r"was fetched from 'bob' after this was computed from it"):
        loss.backward()


def test_what_is_computed_afterwards_has_its_gradient(bob: VirtualWorker) -> None:
    module = nn.Linear(2, 1)
    stale = module(torch.ones(1, 2)).sum()
    send_module(module, bob)
    module(bob.send(torch.ones(1, 2))).sum().backward()
    get_module(module)
    assert torch.equal(module.weight.grad, torch.ones(1, 2))
    module(torch.ones(1, 2)).sum().backward()
    assert torch.equal(module.weight.grad, torch.full((1, 2), 2.0))
    del stale


def test_a_gradient_that_does_not_accumulate_there_is_none_of_its_business(bob: VirtualWorker) -> None:
    module, x = nn.Linear(2, 1), torch.ones(1, 2, requires_grad=True)
    loss = module(x).sum()
    (slope,) = torch.autograd.grad(loss, [x], retain_graph=True)
    send_module(module, bob)
    assert torch.equal(torch.autograd.grad(loss, [x])[0], slope)


def test_without_a_graph_nothing_remains() -> None:
    leaf = torch.ones(2, requires_grad=True)
    refuse_gradient(leaf, "left")
    (leaf * 2).sum().backward()
    assert torch.equal(leaf.grad, torch.full((2,), 2.0))
    gone = weakref.ref(leaf)
    del leaf
    gc.collect()
    assert gone() is None
