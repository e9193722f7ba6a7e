"""Degenerate federations are plain Lightning, bit for bit."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lightning import seed_everything
from torch.utils.data import DataLoader

from fedlightning.data import Explicit, FederatedDataLoader, FederatedDataset, Shards
from fedlightning.strategy import FederatedStrategy
from fedlightning.workers import VirtualWorker
from tests.strategy.toys import (
    Classifier,
    Memo,
    assert_same_module,
    assert_same_optimizer,
    fit,
    loader,
    samples,
    trainer,
)

OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": partial(torch.optim.Adam, lr=0.01),
}
ORDINARY_FITS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"gradient_clip_val": 0.1},
    "bf16": {"precision": "bf16-mixed"},
    "limited": {"limit_train_batches": 3},
    "double": {"precision": "64-true"},
}


@pytest.mark.parametrize("update", ["averaged", "sequential"])
@pytest.mark.parametrize("name", ORDINARY_FITS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_worker_and_one_step_is_an_ordinary_fit(update: Any, name: str, optimizer: str) -> None:
    settings = ORDINARY_FITS[name]
    make = OPTIMIZERS[optimizer]
    plain_log, log = Memo(), Memo()
    plain, plain_trainer = fit(module=seeded(make), logger=plain_log, **settings)
    strategy = FederatedStrategy(workers=1, update=update, local_steps=1)
    ours, our_trainer = fit(strategy, module=seeded(make), logger=log, **settings)

    assert_same_module(plain, ours)
    assert_same_optimizer(plain_trainer.optimizers[0], our_trainer.optimizers[0])
    assert our_trainer.global_step == plain_trainer.global_step
    assert log.entries == plain_log.entries
    assert len(log.entries) > 2
    assert our_trainer.callback_metrics == plain_trainer.callback_metrics


@pytest.mark.parametrize("update", ["averaged", "sequential"])
@pytest.mark.parametrize("work", [{"local_steps": 3}, {"local_epochs": 1}], ids=["steps", "epochs"])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_one_worker_on_the_local_path_is_an_ordinary_fit(
    update: Any, work: dict[str, Any], clip: float | None
) -> None:
    # A schedule that runs over rounds has no counterpart in a plain fit with one round per epoch.
    plain, _ = fit(module=unscheduled(), gradient_clip_val=clip)
    strategy = FederatedStrategy(workers=1, update=update, optimizer_state="keep", **work)
    ours, _ = fit(strategy, module=unscheduled(), gradient_clip_val=clip)
    assert_same_module(plain, ours)


def test_averaging_identical_workers_gives_any_of_them() -> None:
    data = samples(12)
    twice = torch.utils.data.ConcatDataset([data, data])
    make = partial(torch.optim.SGD, lr=0.1)
    alone, _ = fit(
        FederatedStrategy(workers=1),
        module=seeded(make, dropout=0.0),
        train=DataLoader(data, batch_size=4),
    )
    partition = Explicit([range(12), range(12, 24)])
    both, _ = fit(
        FederatedStrategy(workers=2, partition=partition),
        module=seeded(make, dropout=0.0),
        train=DataLoader(twice, batch_size=4),
    )
    assert_same_module(alone, both)


@pytest.mark.parametrize("local_steps", [1, 2])
def test_sequential_is_central_training_on_the_batches_in_that_order(local_steps: int) -> None:
    data = samples(16)
    # bob has samples 0-7 and alice 8-15, in batches of 4: the module meets them in turns of local_steps.
    batches = [range(i, i + 4) for i in (0, 4, 8, 12)]
    order = [batches[i] for i in ([0, 2, 1, 3] if local_steps == 1 else [0, 1, 2, 3])]
    central, _ = fit(
        module=unscheduled(dropout=0.0), train=DataLoader(data, batch_sampler=[list(b) for b in order])
    )
    strategy = FederatedStrategy(
        workers=2, partition=Explicit([range(8), range(8, 16)]), update="sequential", local_steps=local_steps
    )
    federated, _ = fit(
        strategy, module=unscheduled(dropout=0.0), train=DataLoader(data, batch_size=4, shuffle=False)
    )
    assert_same_module(central, federated)


@pytest.mark.parametrize("update", ["averaged", "sequential"])
@pytest.mark.parametrize("work", [{"local_steps": 1}, {"local_steps": 2}, {"local_epochs": 1}])
def test_the_same_seed_gives_the_same_bits(update: Any, work: dict[str, Any]) -> None:
    def run(seed: int) -> Any:
        log = Memo()
        strategy = FederatedStrategy(workers=3, update=update, cohort_size=2, seed=seed, **work)
        module, _ = fit(strategy, logger=log, seed=11)
        return module, log

    (first, first_log), (again, again_log), (other, _) = run(5), run(5), run(6)
    assert_same_module(first, again)
    assert first_log.entries == again_log.entries
    with pytest.raises(AssertionError):
        assert_same_module(first, other)


def workers_named(names: str) -> list[VirtualWorker]:
    return [VirtualWorker(id=name) for name in names]


@pytest.mark.parametrize("partition", [None, Shards(2)], ids=["iid", "shards"])
@pytest.mark.parametrize("work", [{"local_steps": 1}, {"local_steps": 2}, {"cohort_size": 2}])
@pytest.mark.parametrize("update", ["averaged", "sequential"])
def test_workers_listed_in_another_order_give_the_same_bits(
    update: Any, work: dict[str, Any], partition: Any
) -> None:
    def run(names: str) -> Any:
        strategy = FederatedStrategy(workers_named(names), partition, update, seed=0, **work)
        module, trained = fit(strategy, train=loader(31))
        return module, trained.callback_metrics

    (one, logged), (other, logged_again) = run("abc"), run("cab")
    assert_same_module(one, other)
    assert logged == logged_again


@pytest.mark.parametrize("update", ["averaged", "sequential"])
def test_federated_data_listed_in_another_order_gives_the_same_bits(update: Any) -> None:
    def run(names: str) -> Any:
        def data(count: int) -> FederatedDataLoader:
            return FederatedDataLoader(
                FederatedDataset.from_dataset(samples(count), workers), batch_size=4, shuffle=True
            )

        workers = workers_named(names)
        seed_everything(3, verbose=False)
        module, run = Classifier(), trainer(FederatedStrategy(update=update, seed=0))
        run.fit(module, data(31), data(13))
        return module, run.callback_metrics

    (one, logged), (other, logged_again) = run("abc"), run("cab")
    assert_same_module(one, other)
    assert logged == logged_again


def test_parts_that_are_written_down_go_to_the_workers_in_the_order_listed() -> None:
    strategy = FederatedStrategy(
        [VirtualWorker(id=name) for name in "ba"], partition=Explicit([range(20), range(20, 30)])
    )
    fit(strategy, max_epochs=1)
    assert strategy.federation.samples == {"b": 20, "a": 10}


def test_local_randomness_does_not_touch_the_global_streams() -> None:
    drawn = []
    for workers in (2, 5):
        fit(FederatedStrategy(workers=workers, seed=0), train=loader(shuffle=True))
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[1]


def test_averaged_gradients_are_one_large_batch() -> None:
    """FedSGD over equal workers with full batches is a step on the mean gradient of all their samples."""
    data = samples(12)
    make = partial(torch.optim.SGD, lr=0.1)
    central, _ = fit(module=Linear(make), train=DataLoader(data, batch_size=12), max_epochs=3)
    federated, _ = fit(
        FederatedStrategy(workers=3, local_steps=1),
        module=Linear(make),
        train=DataLoader(data, batch_size=4),
        max_epochs=3,
    )
    for left, right in zip(central.parameters(), federated.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-6)


def seeded(make: Any, **settings: Any) -> Classifier:
    torch.manual_seed(1)
    return Classifier(make, **settings)


def unscheduled(**settings: Any) -> Classifier:
    torch.manual_seed(1)
    return Classifier(OPTIMIZERS["adam"], schedule=False, **settings)


class Linear(Classifier):
    """Without batch norm, whose statistics depend on the batch."""

    def __init__(self, make: Any) -> None:
        torch.manual_seed(1)
        super().__init__(make)
        self.net = torch.nn.Linear(4, 3)
