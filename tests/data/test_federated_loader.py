from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from fedlightning.data import Explicit, FederatedDataLoader, FederatedDataset, Shard
from fedlightning.pointers.messages import Message
from fedlightning.workers import KeepData, Reply, TorchHook, VirtualWorker, program

TENSORS = TensorDataset(torch.arange(14.0).reshape(7, 2), torch.arange(7))
PARTITION = Explicit([[0, 2, 4, 6], [1, 3, 5]])


@program(returns="metadata")
def count_samples(shard: Shard) -> int:
    return shard.num_samples


class Recording(VirtualWorker):
    """A worker that keeps a list of the messages it gets."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.messages: list[str] = []

    @override
    def submit(self, message: Message) -> Reply:
        self.messages.append(type(message).__name__)
        return super().submit(message)


def make(**settings: Any) -> FederatedDataLoader:
    workers = [VirtualWorker(id="bob"), VirtualWorker(id="alice")]
    return FederatedDataLoader(FederatedDataset.from_dataset(TENSORS, workers, PARTITION), **settings)


def read(loader: FederatedDataLoader) -> list[tuple[str, list[int]]]:
    return [(x.location.id, y.get().tolist()) for x, y in loader]


def test_batches_lie_at_one_worker_each() -> None:
    loader = make(batch_size=3)
    expected = [("bob", [0, 2, 4]), ("bob", [6]), ("alice", [1, 3, 5])]
    assert read(loader) == expected
    assert len(loader) == len(expected)
    assert (loader.batch_size, loader.drop_last) == (3, False)


def test_drop_last_is_each_workers_own() -> None:
    loader = make(batch_size=4, drop_last=True)
    assert read(loader) == [("bob", [0, 2, 4, 6])]
    assert len(loader) == 1


def test_epochs_are_shuffled_by_seed_and_number() -> None:
    one, again, other = make(shuffle=True), make(shuffle=True), make(shuffle=True, seed=1)
    first, second = read(one), read(one)
    assert first != second
    assert sorted(first) == sorted(second) == sorted(read(make()))
    assert [read(again), read(again)] == [first, second]
    assert read(other) != first
    again.set_epoch(1)
    assert read(again) == second


def test_one_index_message_per_tensor_and_batch() -> None:
    bob = Recording("bob")
    loader = FederatedDataLoader(FederatedDataset.from_dataset(TENSORS, [bob]), batch_size=4)
    bob.messages.clear()
    assert len(list(loader)) == 2
    assert bob.messages == ["Execute"] * 4


def test_a_tutorial_style_loop_trains() -> None:
    TorchHook(torch)
    torch.manual_seed(0)
    x = torch.randn(20, 2)
    target = x @ torch.tensor([[1.0], [-2.0]])
    workers = [VirtualWorker(id="bob"), VirtualWorker(id="alice")]
    data = FederatedDataset.from_dataset(TensorDataset(x, target), workers)
    loader = FederatedDataLoader(data, batch_size=5, shuffle=True)
    model: Any = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(12):
        for inputs, targets in loader:
            model.send(inputs.location)
            optimizer.zero_grad()
            loss = ((model(inputs) - targets) ** 2).mean()
            loss.backward()
            optimizer.step()
            model.get()
    assert torch.allclose(model.weight.detach(), torch.tensor([[1.0, -2.0]]), atol=1e-3)


def test_placements_become_shards_at_the_workers() -> None:
    loader = make(batch_size=3)
    bob, alice = loader.placements()
    assert (bob.num_samples, alice.num_samples) == (4, 3)
    shard = bob.as_shard()
    assert shard.location is bob.worker
    assert bob.worker.run(count_samples, shard) == 4
    own = shard.get()
    expected = DataLoader(TensorDataset(*(tensor[[0, 2, 4, 6]] for tensor in TENSORS.tensors)), batch_size=3)
    assert repr(list(own.batches(0, 2, seed=0, worker="bob"))) == repr(list(expected))


def test_placements_work_where_data_may_not_leave() -> None:
    bob = VirtualWorker(id="bob", policy=KeepData())
    for dataset in (TENSORS, ["a", "b"]):
        loader = FederatedDataLoader(FederatedDataset.from_dataset(dataset, [bob], private=True))
        (placement,) = loader.placements()
        assert bob.run(count_samples, placement.as_shard()) == len(dataset)


def test_says_that_an_object_has_no_batches_of_pointers() -> None:
    bob = VirtualWorker(id="bob")
    loader = FederatedDataLoader(FederatedDataset.from_dataset(["a", "b"], [bob]))
    with pytest.raises(TypeError, match=r"data at 'bob' is a dataset object.*send tensors"):
        next(iter(loader))


def test_refuses_an_ordinary_dataset_and_a_batch_size_of_zero() -> None:
    with pytest.raises(TypeError, match=r"dataset=TensorDataset is no FederatedDataset.*from_dataset"):
        FederatedDataLoader(TENSORS)  # type: ignore[arg-type]  # what a careless caller would do
    with pytest.raises(ValueError, match="batch_size=0"):
        make(batch_size=0)
