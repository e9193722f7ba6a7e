"""What the controller believes of gradients at a worker while several threads compute some."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import pytest
import torch

from fedlightning.pointers.known_gradients import KnownGradients
from fedlightning.pointers.messages import Backward, GradientPresence
from fedlightning.workers import RemoteError, VirtualWorker

PATIENCE = 60  # seconds; only a failure waits that long


@dataclass(frozen=True)
class Told:
    """An answer that has come."""

    object_ids: frozenset[int]

    def wait(self) -> GradientPresence:
        return GradientPresence(self.object_ids)


def test_a_reply_that_was_overtaken_is_not_believed() -> None:
    known = KnownGradients()
    with known.changing() as slow:
        pass
    with known.changing() as quick:
        pass
    known.learn(quick, Told(frozenset({1, 2})))
    assert known.present == {1, 2}
    known.learn(slow, Told(frozenset({1})))
    assert known.present is None


def test_what_is_unknown_stays_unknown_until_a_backward_is_undisturbed() -> None:
    known = KnownGradients()
    known.forget()
    known.note(3, has_gradient=True)
    assert known.present is None
    with known.changing() as undisturbed:
        pass
    known.learn(undisturbed, Told(frozenset({1, 2, 3})))
    known.note(2, has_gradient=False)
    assert known.present == {1, 3}


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_that_were_on_their_way_at_once_none_is_believed(first: int) -> None:
    known = KnownGradients()
    with known.changing() as earlier, known.changing() as later:
        pass
    changes = [(earlier, Told(frozenset({1}))), (later, Told(frozenset({2})))]
    known.learn(*changes[first])
    known.learn(*changes[1 - first])
    assert known.present is None


class Slow(VirtualWorker):
    """A worker whom the first backward reaches after the second, which is told of last."""

    def __init__(self) -> None:
        super().__init__(id="slow")
        self.first_left, self.second_done, self.first_told = Event(), Event(), Event()

    def submit(self, message: Any) -> Any:
        if not isinstance(message, Backward):
            return super().submit(message)
        if self.first_left.is_set():
            answer = super().submit(message)
            self.second_done.set()
            assert self.first_told.wait(PATIENCE)
            return answer
        self.first_left.set()
        assert self.second_done.wait(PATIENCE)
        return super().submit(message)


def test_a_gradient_is_there_whatever_another_thread_computes() -> None:
    worker = Slow()
    one, other = (worker.send(torch.ones(2, requires_grad=True)) for _ in range(2))
    losses = one.sum(), other.sum()
    first, second = (Thread(target=loss.backward) for loss in losses)
    first.start()
    assert worker.first_left.wait(PATIENCE)
    second.start()
    first.join()
    worker.first_told.set()
    second.join()
    assert one.grad is not None
    assert other.grad is not None


def test_a_backward_that_failed_leaves_nothing_believed() -> None:
    worker = VirtualWorker(id="bob")
    leaf = worker.send(torch.ones(2, requires_grad=True))
    loss = leaf.sum()
    loss.backward()
    with pytest.raises(RemoteError):
        loss.backward(worker.send(torch.ones(7)))
    assert worker.known_gradients.present is None
    assert torch.equal(leaf.grad.get(), torch.ones(2))
