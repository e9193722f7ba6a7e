"""Other threads and finalizers come in between at any moment: each test lets them do so at the worst one."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fedlightning.workers.ledger
import fedlightning.workers.remote.lent
from fedlightning.pointers import ids, new_id
from fedlightning.pointers.messages import Put
from fedlightning.workers import Ledger, VirtualWorker, program
from fedlightning.workers.ledger import Entry
from fedlightning.workers.loan import Loan
from fedlightning.workers.remote.connection import Pending
from fedlightning.workers.remote.lent import Lent
from fedlightning.workers.store import ObjectStore

MANY = 6000  # more tuples than Python keeps ready


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Look for garbage when the test says so."""
    before = gc.get_threshold()
    gc.collect()
    gc.disable()
    yield
    gc.set_threshold(*before)
    gc.enable()


@pytest.mark.usefixtures("without_collector")
def test_finalizers_take_objects_out_while_gradients_are_looked_for() -> None:
    worker, shared = VirtualWorker(id="bob"), torch.ones(1)
    for object_id in range(MANY):
        worker._host.store.put(object_id, shared)
    leaf = worker.send(torch.ones(2, requires_grad=True))
    leaf.sum().backward()
    for _ in range(50):
        ring: list[Any] = [leaf * 2]
        ring.append(ring)
    del ring
    # Not at once, but when there are some thousand tuples more.
    gc.set_threshold(gc.get_count()[0] + 1000)
    gc.enable()
    assert worker._host.store.with_gradient() == {leaf.id_at_location}
    gc.collect()
    assert len(worker) == MANY + 1


def test_objects_are_dropped_while_others_are_counted_out() -> None:
    store = ObjectStore(("bob", 0))

    class Dropping(set[int]):
        def __contains__(self, object_id: object) -> bool:
            store.drop(3)
            return super().__contains__(object_id)

    for object_id in (1, 2, 3):
        store.put(object_id, "x")
    store.registered = Dropping({1})
    assert store.unregistered() == [2, 3]
    assert list(store.objects) == [1, 2]


def test_other_threads_have_drawn_all_identifiers_of_a_new_block(monkeypatch: pytest.MonkeyPatch) -> None:
    class Contended(list[int]):
        blocks = 0

        def extend(self, drawn: Any) -> None:
            super().extend(drawn)
            self.blocks += 1
            if self.blocks == 1:
                self.clear()

    pool = Contended()
    monkeypatch.setattr(ids, "_pool", pool)
    assert len(str(new_id())) == 11
    assert pool.blocks == 2


def test_another_thread_tells_of_the_last_released_object() -> None:
    class Contended(deque[int]):
        def popleft(self) -> int:
            if len(self) == 1:
                self.clear()
            return super().popleft()

    worker = VirtualWorker(id="bob")
    worker._released = Contended([1, 2, 3])
    assert worker.take_released() == (1, 2)
    assert worker.take_released() == ()


def test_something_is_entered_while_a_ledger_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger()
    ledger.receive("first", 1, None)

    def entering(*fields: Any) -> Entry:
        ledger.receive("second", 2, None)
        return Entry(*fields)

    monkeypatch.setattr(fedlightning.workers.ledger, "Entry", entering)
    assert [entry.item for entry in ledger.entries] == ["first"]
    assert ledger.received_bytes == 3


def test_modules_are_let_go_of_while_one_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    lent, first, second = Lent(), nn.Linear(1, 1), nn.Linear(1, 1)
    answer: Any = Pending.__new__(Pending)
    lent.note(Put(1, first), answer)
    lent.note(Put(2, second), answer)

    def letting_go(module: nn.Module) -> list[Tensor]:
        lent.forget([1])
        return list(module.parameters())

    monkeypatch.setattr(fedlightning.workers.remote.lent, "parameters_of", letting_go)
    assert lent.place_of(second.weight) == (2, 0)


@program(returns="metadata")
def double_on_loan(module: nn.Linear, x: Tensor) -> None:
    """Let another thread's undisturbed backward end before this program computes a gradient."""
    bystander = WORKERS[0].send(torch.ones(1, requires_grad=True))
    bystander.sum().backward()
    x.sum().backward()


WORKERS: list[VirtualWorker] = []


def test_a_backward_ends_amid_a_program_on_loan() -> None:
    worker = VirtualWorker(id="bob")
    WORKERS[:] = [worker]
    x = worker.send(torch.ones(2, requires_grad=True))
    worker.lend(Loan(double_on_loan, [nn.Linear(1, 1)]), x)
    assert x.grad is not None
