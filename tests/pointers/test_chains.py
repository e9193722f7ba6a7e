"""Pointers to pointers: a worker holds the pointer, and what is done with it is done where it leads."""

from __future__ import annotations

import pytest
import torch

from fedlightning.pointers import PointerError, StalePointerError, UnsupportedOperationError
from fedlightning.workers import KeepData, RefusedByPolicy, RemoteError, VirtualWorker, local_worker
from fedlightning.workers.remote import ProcessWorker


def test_a_pointer_is_held_by_the_worker_it_was_sent_to(alice: VirtualWorker, bob: VirtualWorker) -> None:
    pointer = bob.send(torch.arange(3.0))
    outer = pointer.send(alice)
    inner = alice._objects[outer.id_at_location]
    assert repr(outer) == f"(Wrapper)>[PointerTensor | me:{outer.id} -> alice:{outer.id_at_location}]"
    assert repr(inner) == (
        f"(Wrapper)>[PointerTensor | alice:{outer.id_at_location} -> bob:{pointer.id_at_location}]"
    )
    assert inner.owner is alice
    assert (outer.owner, outer.location, outer.shape) == (local_worker, alice, (3,))


def test_get_unwraps_one_level(alice: VirtualWorker, bob: VirtualWorker) -> None:
    inner = bob.send(torch.arange(3.0)).send(alice).get()
    assert (inner.owner, inner.location) == (local_worker, bob)
    assert len(alice) == 0
    assert torch.equal(inner.get(), torch.arange(3.0))
    assert len(bob) == 0


def test_what_is_computed_through_a_chain_is_computed_at_its_end(
    alice: VirtualWorker, bob: VirtualWorker
) -> None:
    outer = bob.send(torch.arange(3.0, requires_grad=True)).send(alice)
    total = (outer * outer + 1).sum()
    assert total.requires_grad
    total.backward()
    assert torch.equal(outer.grad.copy().get().get(), torch.tensor([0.0, 2.0, 4.0]))
    assert outer.detach().add_(1).location is alice
    assert torch.equal(outer.new_empty(2).get().get(), torch.zeros(2))
    assert torch.equal(torch.cat([outer, outer])[:2].get().get().detach(), torch.tensor([1.0, 2.0]))


def test_longer_chains(alice: VirtualWorker, bob: VirtualWorker) -> None:
    carol = VirtualWorker(id="carol")
    outer = bob.send(torch.arange(3.0)).send(alice).send(carol)
    doubled = outer * 2
    assert torch.equal(doubled.get().get().get(), torch.tensor([0.0, 2.0, 4.0]))
    outer.remote_get()
    assert len(alice) == 0
    assert torch.equal(outer.get().get(), torch.arange(3.0))


def test_objects_go_with_the_last_pointer_of_a_chain(alice: VirtualWorker, bob: VirtualWorker) -> None:
    pointer = bob.send(torch.ones(2))
    outer = pointer.send(alice)
    doubled = outer * 2
    assert (len(alice), len(bob)) == (2, 2)
    del doubled
    assert (len(alice), len(bob)) == (1, 1)
    del pointer
    assert (len(alice), len(bob)) == (1, 1)
    del outer
    assert (len(alice), len(bob)) == (0, 0)


def test_remote_get_brings_the_tensor_to_the_holder(alice: VirtualWorker, bob: VirtualWorker) -> None:
    pointer = bob.send(torch.arange(3.0, requires_grad=True))
    (pointer * 2).sum().backward()
    outer = pointer.send(alice)
    assert outer.remote_get() is outer
    assert (len(alice), len(bob)) == (1, 0)
    assert torch.equal(outer.grad.copy().get(), torch.full((3,), 2.0))
    assert torch.equal(outer.get().detach(), torch.arange(3.0))
    with pytest.raises(RemoteError, match="no object"):
        pointer + 1


def test_remote_get_of_what_is_there_says_so(alice: VirtualWorker) -> None:
    pointer = alice.send(torch.ones(1))
    with pytest.raises(RemoteError, match="is at 'alice' itself"):
        pointer.remote_get()
    assert torch.equal(pointer.get(), torch.ones(1))


def test_a_spent_pointer_is_not_sent(alice: VirtualWorker, bob: VirtualWorker) -> None:
    pointer = bob.send(torch.ones(1))
    pointer.get()
    with pytest.raises(StalePointerError):
        pointer.send(alice)
    assert len(alice) == 0


def test_an_error_comes_from_where_it_happened(alice: VirtualWorker, bob: VirtualWorker) -> None:
    outer = bob.send(torch.ones(2)).send(alice)
    with pytest.raises(RemoteError, match=r"at worker 'bob'") as info:
        outer.view(7)
    assert info.value.worker == "bob"


def test_a_chain_passes_no_worker_twice_nor_one_that_it_does_not_reach(bob: VirtualWorker) -> None:
    with pytest.raises(UnsupportedOperationError, match="at 'bob' already"):
        bob.send(torch.ones(1)).send(bob)
    with ProcessWorker(id="far") as far:
        pointer = bob.send(torch.ones(1))
        with pytest.raises(UnsupportedOperationError, match=r"does not reach directly.*\.move\(far\)"):
            pointer.send(far)
        assert torch.equal(pointer.move(far).get(), torch.ones(1))


def test_pointers_in_other_objects_are_not_sent(alice: VirtualWorker, bob: VirtualWorker) -> None:
    pointer = bob.send(torch.ones(1))
    with pytest.raises(PointerError, match=r"tuple holds a pointer to 'bob'"):
        alice.send((1, pointer))


@pytest.mark.parametrize("private_first", [True, False])
def test_private_data_does_not_go_along_a_chain(private_first: bool, bob: VirtualWorker) -> None:
    owner = VirtualWorker(id="owner", policy=KeepData())
    secret = owner.register(torch.tensor(7.0))
    elsewhere = bob.send(torch.ones(2)).send(owner)
    mix = secret.mul if private_first else elsewhere.copy_
    with pytest.raises(RefusedByPolicy, match=r"together with a pointer to 'bob'"):
        mix(elsewhere if private_first else secret)
    with pytest.raises(RefusedByPolicy, match=r"together with a pointer to 'bob'"):
        elsewhere[secret.long()]
    assert torch.equal(elsewhere.get().get(), torch.ones(2))
