"""Gradients of remote tensors: computed there, fetched with their leaves, asked for only where present."""

from __future__ import annotations

import pytest
import torch

from fedlightning.pointers import MixedLocationsError
from fedlightning.pointers.messages import Backward, Execute, Message
from fedlightning.workers import Reply, VirtualWorker, program


class RecordingWorker(VirtualWorker):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.messages: list[Message] = []

    def submit(self, message: Message) -> Reply:
        self.messages.append(message)
        return super().submit(message)


def test_gradient_comes_back_with_its_leaf(bob: VirtualWorker) -> None:
    x = bob.send(torch.tensor([1.0, 2.0], requires_grad=True))
    assert x.grad is None
    loss = (x**2).sum()
    assert loss.backward() is loss
    assert torch.equal(x.grad.clone().get(), torch.tensor([2.0, 4.0]))
    fetched = x.get()
    assert torch.equal(fetched.grad, torch.tensor([2.0, 4.0]))


def test_gradients_accumulate_and_can_be_reset(bob: VirtualWorker) -> None:
    x = bob.send(torch.ones(2, requires_grad=True))
    (x * 3).sum().backward()
    (x * 3).sum().backward()
    assert torch.equal(x.grad.clone().get(), torch.full((2,), 6.0))
    x.grad = None
    assert x.grad is None
    assert x.get().grad is None


def test_a_gradient_that_was_sent_is_known(bob: VirtualWorker) -> None:
    x = torch.ones(2, requires_grad=True)
    x.grad = torch.full((2,), 7.0)
    assert torch.equal(bob.send(x).grad.get(), x.grad)


def test_one_message_for_backward_and_none_for_absent_gradients() -> None:
    worker = RecordingWorker("bob")
    x, y = (worker.send(torch.ones(2, requires_grad=True)) for _ in range(2))
    loss = (x * 2).sum()
    worker.messages.clear()
    loss.backward()
    assert y.grad is None
    assert x.grad is not None
    assert x.grad is x.grad
    assert [type(message) for message in worker.messages] == [Backward, Execute]


def test_autograd_grad_and_double_backward(bob: VirtualWorker) -> None:
    x = bob.send(torch.tensor([3.0], requires_grad=True))
    (slope,) = torch.autograd.grad((x**3).sum(), [x], create_graph=True)
    slope.sum().backward()
    assert x.grad.get().item() == 18


def test_backward_from_a_vector_needs_its_gradient_there(bob: VirtualWorker) -> None:
    x = bob.send(torch.ones(2, requires_grad=True))
    y = x * 2
    with pytest.raises(MixedLocationsError, match="send it there"):
        y.backward(torch.ones(2))
    y.backward(bob.send(torch.tensor([1.0, 3.0])))
    assert torch.equal(x.grad.get(), torch.tensor([2.0, 6.0]))


def test_backward_from_several_tensors(bob: VirtualWorker) -> None:
    x = bob.send(torch.ones(2, requires_grad=True))
    torch.autograd.backward([(x * 2).sum(), (x * 3).sum()])
    assert torch.equal(x.grad.get(), torch.full((2,), 5.0))


def test_non_leaf_gradients_are_retained(bob: VirtualWorker) -> None:
    y = bob.send(torch.ones(2, requires_grad=True)) * 2
    y.retain_grad()
    (y * 5).sum().backward()
    assert torch.equal(y.grad.get(), torch.full((2,), 5.0))


def test_a_view_made_invalid_does_not_disturb_the_backward_of_others(bob: VirtualWorker) -> None:
    x = bob.send(torch.ones(2, requires_grad=True)) * 1
    parts = x.split(1)
    with torch.no_grad():
        x.mul_(2)
    y = bob.send(torch.ones(2, requires_grad=True))
    y.sum().backward()
    assert torch.equal(y.grad.get(), torch.ones(2))
    del parts


@program(returns="metadata")
def square_and_backward(x: torch.Tensor) -> None:
    (x**2).sum().backward()


def test_gradients_computed_by_a_program_are_seen(bob: VirtualWorker) -> None:
    x = bob.send(torch.ones(2, requires_grad=True))
    bob.run(square_and_backward, x)
    assert torch.equal(x.grad.get(), torch.full((2,), 2.0))
