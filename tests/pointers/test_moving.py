"""Objects go from worker to worker, with their gradients, and with whose data they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedlightning.pointers import (
    PointerError,
    StalePointerError,
    UnsupportedOperationError,
    move_module,
    send_module,
)
from fedlightning.workers import (
    Allow,
    Decision,
    Egress,
    KeepData,
    Policy,
    RefusedByPolicy,
    RemoteError,
    Rules,
    VirtualWorker,
    local_worker,
)
from fedlightning.workers.remote import ProcessWorker


def test_a_tensor_is_handed_over_directly(alice: VirtualWorker, bob: VirtualWorker) -> None:
    pointer = bob.send(torch.arange(3.0, requires_grad=True), tags=("#a",))
    (pointer * 2).sum().backward()
    moved = pointer.move(alice)
    assert (len(bob), len(alice)) == (0, 1)
    assert [entry["to"] for entry in bob.ledger.rows() if entry["direction"] == "sent"] == ["alice"]
    assert moved.tags == ("#a",)
    assert torch.equal(moved.grad.copy().get(), torch.full((3,), 2.0))
    assert torch.equal(moved.get().detach(), torch.arange(3.0))
    with pytest.raises(StalePointerError, match="was moved to 'alice'"):
        pointer.get()


def test_a_view_that_stays_shares_no_memory_with_what_has_moved(
    alice: VirtualWorker, bob: VirtualWorker
) -> None:
    pointer = bob.send(torch.zeros(2))
    view = pointer.view(2)
    moved = pointer.move(alice)
    view.add_(1)
    assert torch.equal(moved.get(), torch.zeros(2))


def test_moving_to_where_it_is_and_to_the_controller(bob: VirtualWorker) -> None:
    pointer = bob.send(torch.ones(2))
    assert pointer.move(bob) is pointer
    assert torch.equal(pointer.move(local_worker), torch.ones(2))
    assert len(bob) == 0


def test_by_way_of_the_controller_where_workers_do_not_reach_each_other(bob: VirtualWorker) -> None:
    with ProcessWorker(id="far") as far:
        there = bob.send(torch.ones(2)).move(far)
        assert there.location is far
        assert torch.equal(there.move(bob).get(), torch.ones(2))
        with pytest.raises(UnsupportedOperationError, match="hands nothing to 'far' directly"):
            bob.send(TensorDataset(torch.ones(2))).move(far)


def test_objects_that_are_no_tensors_move_too(alice: VirtualWorker, bob: VirtualWorker) -> None:
    data = TensorDataset(torch.ones(2))
    pointer = bob.send(data, tags=("#d",))
    moved = pointer.move(alice)
    assert moved.move(alice) is moved
    assert [found.id_at_location for found in alice.search("#d")] == [moved.id_at_location]
    assert moved.get() is data
    assert (len(bob), len(alice)) == (0, 0)


def test_private_data_stays_unless_its_owner_allows_the_other_worker(alice: VirtualWorker) -> None:
    bob = VirtualWorker(id="bob", policy=KeepData())
    secret = bob.register(torch.ones(2))
    with pytest.raises(RefusedByPolicy, match="leave for 'alice'"):
        secret.move(alice)
    with pytest.raises(RefusedByPolicy, match="leave for 'alice'"):
        secret.send(alice).remote_get()
    assert torch.equal(bob._objects[secret.id_at_location], torch.ones(2))


def test_moved_data_takes_its_owners_policy_along(alice: VirtualWorker) -> None:
    bob = VirtualWorker(id="bob", policy=Rules(Allow(kinds=("data",), to=("alice",))))
    secret = bob.register(torch.ones(2, requires_grad=True))
    moved = secret.move(alice)
    with pytest.raises(RefusedByPolicy):
        (moved.detach() * 2).get()
    (moved * 2).sum().backward()
    with pytest.raises(RefusedByPolicy):
        moved.grad.get()
    with pytest.raises(RefusedByPolicy):
        moved.move(local_worker)
    assert torch.equal(alice.send(torch.ones(1)).get(), torch.ones(1))


def test_a_registered_object_stays_registered(alice: VirtualWorker, bob: VirtualWorker) -> None:
    moved = bob.register(torch.ones(2)).move(alice)
    del moved
    assert len(alice.clear_objects()) == 1


def test_a_gradient_that_would_go_to_a_tensor_that_moved(alice: VirtualWorker, bob: VirtualWorker) -> None:
    pointer = bob.send(torch.ones(2, requires_grad=True))
    loss = pointer.sum()
    pointer.move(alice)
    with pytest.raises(RemoteError, match="was moved to 'alice' after this was computed"):
        loss.backward()


class SmallThingsOnly(Policy):
    def decide(self, egress: Egress) -> Decision:
        return Decision(egress.nbytes < 30, "small things only")


def test_a_module_moves_whole_or_not_at_all(alice: VirtualWorker) -> None:
    bob = VirtualWorker(id="bob", policy=SmallThingsOnly())
    module = send_module(nn.Sequential(nn.Linear(2, 2), nn.Linear(5, 2)), bob)
    with pytest.raises(RefusedByPolicy, match="small things only"):
        move_module(module, alice)
    assert {parameter.location for parameter in module.parameters()} == {bob}
    assert (len(bob), len(alice)) == (4, 0)


def test_a_module_is_computed_with_where_it_has_moved(alice: VirtualWorker, bob: VirtualWorker) -> None:
    module, x = nn.LSTM(3, 2), torch.ones(2, 1, 3)
    expected = module(x)[0]
    send_module(module, bob)
    identities = list(map(id, module.parameters()))
    move_module(module, alice)
    assert list(map(id, module.parameters())) == identities
    assert torch.equal(module(alice.send(x))[0].get(), expected)
    move_module(module, local_worker)
    assert torch.equal(module(x)[0], expected)
    with pytest.raises(PointerError, match="here already"):
        move_module(module, alice)
