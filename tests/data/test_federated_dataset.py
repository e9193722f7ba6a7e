from __future__ import annotations

import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from fedlightning.data import IID, Explicit, FederatedDataset, Natural
from fedlightning.workers import KeepData, RefusedByPolicy, VirtualWorker

TENSORS = TensorDataset(torch.arange(14.0).reshape(7, 2), torch.arange(7))


def workers(*names: str) -> list[VirtualWorker]:
    return [VirtualWorker(id=name) for name in names]


def test_existing_pointers_by_worker_or_as_the_tutorials_list() -> None:
    bob, alice = workers("bob", "alice")
    part = {bob: (bob.send(torch.zeros(4, 2)), bob.send(torch.zeros(4))), alice: alice.send(torch.zeros(2))}
    for parts in (part, [*part.values()]):
        dataset = FederatedDataset(parts)
        assert dataset.workers == (bob, alice)
        assert dataset.samples == {"bob": 4, "alice": 2}
        assert len(dataset) == 6
        assert dataset["bob"] == part[bob]


def test_from_dataset_sends_each_worker_its_rows() -> None:
    bob, alice = workers("bob", "alice")
    partition = Explicit([[0, 2, 4, 6], [1, 3, 5]])
    dataset = FederatedDataset.from_dataset(TENSORS, [bob, alice], partition)
    assert len(bob) == len(alice) == 2
    x, y = dataset["alice"]
    assert torch.equal(y.get(), torch.tensor([1, 3, 5]))
    assert torch.equal(x.get(), TENSORS.tensors[0][[1, 3, 5]])


def test_from_dataset_is_seeded_and_divides_iid_by_default() -> None:
    def rows(seed: int) -> torch.Tensor:
        (bob, alice) = workers("bob", "alice")
        dataset = FederatedDataset.from_dataset(TENSORS, [bob, alice], seed=seed)
        assert dataset.samples == {"bob": 3, "alice": 4}
        pointer = dataset["alice"][1]
        value = pointer.get()
        assert isinstance(value, torch.Tensor)
        return value

    assert torch.equal(rows(0), torch.from_numpy(IID().split(TENSORS, 2, 0).indices[0]))
    assert not torch.equal(rows(0), rows(1))


def test_drawn_parts_go_by_name_and_not_by_the_order_of_the_list() -> None:
    def parts(*names: str) -> FederatedDataset:
        return FederatedDataset.from_dataset(TENSORS, workers(*names))

    one, other = parts("bob", "alice"), parts("alice", "bob")
    for name in ("alice", "bob"):
        assert torch.equal(one[name][1].get(), other[name][1].get())
    assert one.fingerprint == other.fingerprint


def test_the_fingerprint_is_that_of_who_has_which_samples() -> None:
    def of(seed: int) -> str | None:
        return FederatedDataset.from_dataset(TENSORS, workers("bob", "alice"), seed=seed).fingerprint

    assert of(0) == of(0) != of(1)
    (bob,) = workers("bob")
    assert FederatedDataset([bob.send(torch.zeros(3))]).fingerprint is None


def test_parts_go_to_the_workers_that_the_partition_names() -> None:
    bob, alice = workers("bob", "alice")
    partition = Natural(["alice", "bob", "bob", "bob", "alice", "bob", "bob"])
    dataset = FederatedDataset.from_dataset(TENSORS, [bob, alice], partition)
    assert dataset.samples == {"bob": 5, "alice": 2}
    with pytest.raises(
        ValueError, match=r"workers=\['bob', 'carol'\], but the partition names \['alice', 'bob'\]"
    ):
        FederatedDataset.from_dataset(TENSORS, [bob, *workers("carol")], partition)


def test_any_other_dataset_lies_at_the_worker_as_an_object() -> None:
    (bob,) = workers("bob")
    dataset = FederatedDataset.from_dataset(["a", "b", "c"], [bob])
    assert dataset.samples == {"bob": 3}
    part = dataset["bob"][0].get()
    assert isinstance(part, Subset)
    assert [part[position] for position in range(3)] == ["a", "b", "c"]


def test_private_parts_do_not_leave() -> None:
    bob = VirtualWorker(id="bob", policy=KeepData())
    private = FederatedDataset.from_dataset(TENSORS, [bob], private=True)
    with pytest.raises(RefusedByPolicy):
        private["bob"][0].get()
    own = FederatedDataset.from_dataset(TENSORS, [bob])
    assert torch.equal(own["bob"][1].get(), torch.arange(7))


def test_refuses_no_workers_and_too_many() -> None:
    with pytest.raises(ValueError, match="workers is empty"):
        FederatedDataset.from_dataset(TENSORS, [])
    with pytest.raises(ValueError, match="num_workers=8 is more than the 7 samples"):
        FederatedDataset.from_dataset(TENSORS, workers(*"abcdefgh"))
    with pytest.raises(ValueError, match="two workers with id='bob'"):
        FederatedDataset.from_dataset(TENSORS, workers("bob", "bob"))


def test_refuses_parts_that_do_not_belong_together() -> None:
    bob, alice = workers("bob", "alice")
    two, three, elsewhere = bob.send(torch.zeros(2)), bob.send(torch.zeros(3)), alice.send(torch.zeros(2))
    with pytest.raises(ValueError, match=r"different numbers of samples \(\[2, 3\]\)"):
        FederatedDataset([(two, three)])
    with pytest.raises(ValueError, match=r"several workers \(alice, bob\)"):
        FederatedDataset([(two, elsewhere)])
    with pytest.raises(ValueError, match=r"several workers \(alice, bob\)"):
        FederatedDataset({alice: two})
    with pytest.raises(ValueError, match="two workers with id='bob'"):
        FederatedDataset([two, three])
    with pytest.raises(ValueError, match="first dimension counts samples"):
        FederatedDataset([bob.send(torch.tensor(1.0))])
    with pytest.raises(ValueError, match="parts is empty"):
        FederatedDataset([])


def test_refuses_data_that_was_not_sent() -> None:
    with pytest.raises(TypeError, match=r"parts must hold pointers, got Tensor, Tensor: send the data first"):
        FederatedDataset([TENSORS.tensors])


def test_names_the_workers_there_are() -> None:
    (bob,) = workers("bob")
    with pytest.raises(KeyError, match=r"No data at a worker 'eve'; there is some at bob"):
        FederatedDataset([bob.send(torch.zeros(2))])["eve"]
