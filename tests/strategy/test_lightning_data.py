"""Data comes from a DataModule, a loader or from where it lies, and is evaluated as ever."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fedlightning.data import Explicit, FederatedDataLoader, FederatedDataset, Natural
from fedlightning.strategy import FederatedStrategy
from fedlightning.workers import VirtualWorker
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, samples, trainer

UPDATES = ["averaged", "sequential"]


def test_test_validate_and_predict_run_on_the_global_module() -> None:
    class Predicts(Classifier):
        def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
            self.validation_step(batch, batch_idx)

        def predict_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return self.net(batch[0]).argmax(-1)

    module, run = fit(FederatedStrategy(2), module=Predicts())
    held_out = loader(12, shuffle=False)
    (validated,) = run.validate(module, held_out, verbose=False)
    (tested,) = run.test(module, held_out, verbose=False)
    assert validated == tested
    predicted = torch.cat(run.predict(module, held_out))
    assert (predicted == samples(12).tensors[1]).float().mean().item() == pytest.approx(tested["val/acc"])


class Data(L.LightningDataModule):
    """A DataModule as anybody would write it."""

    def setup(self, stage: str) -> None:
        self.train, self.val = samples(30), samples(12, seed=1)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train, batch_size=4, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val, batch_size=4)


@pytest.mark.parametrize("update", UPDATES)
def test_a_datamodule_is_partitioned(update: Any) -> None:
    run = trainer(FederatedStrategy(3, update=update))
    run.fit(Classifier(), datamodule=Data())
    members = run.strategy.federation.members.values()
    assert sorted(member.samples for member in members) == [10, 10, 10]
    assert [member.batches for member in members] == [3, 3, 3]


def federated(workers: list[VirtualWorker], **settings: Any) -> FederatedDataLoader:
    return FederatedDataLoader(FederatedDataset.from_dataset(samples(), workers), batch_size=4, **settings)


@pytest.mark.parametrize("update", UPDATES)
def test_federated_data_trains_like_the_same_data_partitioned(update: Any) -> None:
    def names() -> list[VirtualWorker]:
        return [VirtualWorker(id=name) for name in ("alice", "bob", "carol")]

    ordinary, _ = fit(FederatedStrategy(names(), update=update, seed=0))
    train = federated(names(), shuffle=True)
    ours, _ = fit(FederatedStrategy(update=update, seed=0), train=train)
    assert_same_module(ordinary, ours)


def test_federated_data_at_other_workers_than_asked_for() -> None:
    train = federated([VirtualWorker(id="bob")])
    with pytest.raises(ValueError, match=r"lies at \['bob'\]"):
        fit(FederatedStrategy([VirtualWorker(id="alice")]), train=train)


def test_workers_are_named_by_the_data() -> None:
    data = samples()
    hospital = torch.arange(30) % 4
    strategy = FederatedStrategy(partition=Natural(hospital))
    fit(strategy, train=DataLoader(data, batch_size=4))
    assert [(m.worker.id, m.samples) for m in strategy.federation.members.values()] == [
        ("0", 8),
        ("1", 8),
        ("2", 7),
        ("3", 7),
    ]


def test_a_named_part_lies_at_the_worker_of_that_name() -> None:
    partition = Explicit({"bob": range(20), "alice": range(20, 30)})
    strategy = FederatedStrategy([VirtualWorker(id="alice"), VirtualWorker(id="bob")], partition)
    fit(strategy)
    assert {name: m.samples for name, m in strategy.federation.members.items()} == {"alice": 10, "bob": 20}
