"""Several train loaders at several workers: each has a part of every loader, combined there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Subset

from fedlightning.data import Explicit, FederatedDataLoader, FederatedDataset, Shards
from fedlightning.strategy import FederatedStrategy, NotFederatable
from fedlightning.workers import VirtualWorker
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, samples, trainer

MODES = ["min_size", "max_size", "max_size_cycle"]
UPDATES = ["averaged", "sequential"]
UNEVEN = [range(3), range(3, 8), range(8, 17), range(17, 24)]


class Sources(Classifier):
    """Takes a dict with two batches, either of which may be missing or of one sample."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        super().__init__(partial(torch.optim.SGD, lr=0.1), schedule=False)
        self.net = nn.Linear(4, 3)
        self.seen: list[tuple[int, int]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        sizes = [0 if part is None else len(part[0]) for part in (batch["a"], batch["b"][0])]
        self.seen.append((sizes[0], sizes[1]))
        parts = [part for part in (batch["a"], batch["b"][0]) if part is not None]
        loss = torch.stack([nn.functional.cross_entropy(self.net(x), y) for x, y in parts]).sum()
        self.log("train/loss", loss, batch_size=4)
        return loss


def two(shuffle: bool = True) -> dict[str, Any]:
    data = samples(24), samples(24, seed=1)
    return {
        "a": DataLoader(data[0], batch_size=2, shuffle=shuffle),
        "b": [DataLoader(data[1], batch_size=5, shuffle=shuffle)],
    }


def by_hand(mode: Any, part: range) -> list[Any]:
    """Return the batches of one local epoch of a worker with this part of both."""
    loaders = two(shuffle=False)
    of_worker = {
        "a": DataLoader(Subset(loaders["a"].dataset, part), batch_size=2),
        "b": [DataLoader(Subset(loaders["b"][0].dataset, part), batch_size=5)],
    }
    return [batch for batch, *_ in CombinedLoader(of_worker, mode)]


class Listed:
    """A loader of batches that are there already."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


@pytest.mark.parametrize("local_steps", [None, 2])
@pytest.mark.parametrize("mode", MODES)
def test_sequential_visits_are_central_training_on_the_workers_batches(mode: Any, local_steps: Any) -> None:
    strategy = FederatedStrategy(4, Explicit(UNEVEN), "sequential", local_steps=local_steps)
    epoch = [by_hand(mode, part) for part in UNEVEN]
    if local_steps is None:
        batches = [batch for part in epoch for batch in part]
    else:  # in turn, two batches each
        turns = range(0, max(map(len, epoch)), 2)
        batches = [batch for turn in turns for part in epoch for batch in part[turn : turn + 2]]
    ours, _ = fit(strategy, module=Sources, train=CombinedLoader(two(shuffle=False), mode), max_epochs=2)
    # As one collection, that Lightning does not take apart again.
    central, _ = fit(module=Sources, train=Listed(batches), max_epochs=2)
    assert_same_module(central, ours)


@pytest.mark.parametrize("mode", MODES)
def test_an_averaged_round_is_the_weighted_mean_of_what_each_worker_would_train(mode: Any) -> None:
    strategy = FederatedStrategy(4, Explicit(UNEVEN), rounds_per_epoch=1)
    ours, _ = fit(strategy, module=Sources, train=CombinedLoader(two(shuffle=False), mode), max_epochs=1)
    alone = [fit(module=Sources, train=Listed(by_hand(mode, part)), max_epochs=1)[0] for part in UNEVEN]
    for name, value in ours.state_dict().items():
        if name.startswith("net"):
            parts = [
                len(part) * module.state_dict()[name] for part, module in zip(UNEVEN, alone, strict=True)
            ]
            torch.testing.assert_close(value, torch.stack(parts).sum(0) / 24)


WORK: list[dict[str, Any]] = [{"local_steps": 1}, {"local_steps": 3, "optimizer_state": "keep"}, {}]


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("mode", MODES)
def test_a_run_goes_on_from_any_round_in_the_same_bits(
    mode: Any, update: Any, work: dict[str, Any], tmp_path: Path
) -> None:
    def strategy() -> FederatedStrategy:
        return FederatedStrategy(4, Shards(2), update, seed=0, **work)

    def train() -> CombinedLoader:
        return CombinedLoader(two(), mode)

    saver = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    whole, run = fit(
        strategy(), module=Sources, train=train(), callbacks=[saver], enable_checkpointing=True, max_epochs=2
    )
    assert run.global_step == len(run.strategy.history) > 0
    for step in {1, run.num_training_batches, run.num_training_batches + 1} & set(range(run.global_step)):
        resumed = Sources()
        again = trainer(strategy(), max_epochs=2)
        again.fit(resumed, train(), loader(12, shuffle=False), ckpt_path=str(tmp_path / f"step={step}.ckpt"))
        assert_same_module(whole, resumed)


@pytest.mark.parametrize("work", [{"local_steps": 5}, {}, {"local_epochs": 2}], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_visits_of_one_worker_are_central_training_on_the_same_combination(
    mode: Any, work: dict[str, Any], tmp_path: Path
) -> None:
    """Where the shorter loader ends, within a visit or a local epoch, the mode says what comes then."""
    epochs = work.get("local_epochs", 1)

    def train() -> CombinedLoader:
        return CombinedLoader(two(shuffle=epochs == 1), mode)

    central, _ = fit(module=Sources, train=train(), max_epochs=2 * epochs)
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    settings = {"callbacks": [saver], "enable_checkpointing": True}
    ours, run = fit(FederatedStrategy(1, **work), module=Sources, train=train(), max_epochs=2, **settings)
    assert_same_module(central, ours)
    assert ours.seen == central.seen  # type: ignore[union-attr]  # both are Sources
    batches = epochs * (5 if mode == "min_size" else 12)
    assert sum(record.steps for record in run.strategy.history) == 2 * batches
    for checkpoint in tmp_path.glob("*.ckpt"):
        resumed = Sources()
        trainer(FederatedStrategy(1, **work)).fit(
            resumed, train(), loader(12, shuffle=False), ckpt_path=str(checkpoint)
        )
        assert_same_module(central, resumed)


def test_a_loader_of_several_that_has_no_length_is_refused_for_several_steps_alone() -> None:
    def train() -> dict[str, Any]:
        return {"a": loader(8, 2), "b": [DataLoader(Stream(), batch_size=5)]}

    with pytest.raises(NotFederatable, match=r"one of several train loaders has no length.*local_steps=1"):
        fit(FederatedStrategy(1, local_steps=2), module=Sources, train=train())
    fit(FederatedStrategy(1, local_steps=1), module=Sources, train=train(), max_epochs=1)


def test_an_epoch_sees_every_sample_of_the_longest_part_once() -> None:
    module, _ = fit(FederatedStrategy(4, update="sequential"), module=Sources, train=two(), max_epochs=1)
    assert isinstance(module, Sources)
    assert sum(first for first, _ in module.seen) == 24
    assert all(first and second for first, second in module.seen)


@pytest.mark.parametrize("update", UPDATES)
def test_loaders_may_be_of_data_that_lies_at_the_workers(update: Any) -> None:
    names = ("ann", "bob", "carl")

    def workers() -> list[VirtualWorker]:
        return [VirtualWorker(id=name) for name in names]

    def federated(count: int, there: list[VirtualWorker], **settings: Any) -> FederatedDataLoader:
        data = FederatedDataset.from_dataset(samples(count), there, Shards(2), seed=0)
        return FederatedDataLoader(data, shuffle=True, **settings)

    there = workers()
    at_workers = {"a": federated(24, there, batch_size=2), "b": [federated(30, there, batch_size=5)]}
    here = {"a": loader(24, 2), "b": [loader(30, 5)]}
    theirs, _ = fit(FederatedStrategy(update=update, seed=0), module=Sources, train=at_workers)
    ours, _ = fit(FederatedStrategy(workers(), Shards(2), update, seed=0), module=Sources, train=here)
    assert_same_module(theirs, ours)


def test_loaders_at_different_workers_are_refused() -> None:
    def at(name: str) -> FederatedDataLoader:
        workers = [VirtualWorker(id=name), VirtualWorker(id="both")]
        return FederatedDataLoader(FederatedDataset.from_dataset(samples(), workers), batch_size=4)

    with pytest.raises(ValueError, match=r"lies at \['bob', 'both'\]"):
        fit(FederatedStrategy(), module=Sources, train={"a": at("ann"), "b": [at("bob")]})


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(samples())


@pytest.mark.parametrize("first", [True, False])
def test_a_loader_among_them_that_cannot_be_divided_is_refused(first: bool) -> None:
    loaders: list[Callable[[], Any]] = [loader, lambda: DataLoader(Stream(), batch_size=4)]
    a, b = (one() for one in (loaders[::-1] if first else loaders))
    with pytest.raises(TypeError, match="Stream is an IterableDataset"):
        fit(FederatedStrategy(2), module=Sources, train={"a": a, "b": [b]})


def test_lightning_itself_refuses_one_loader_after_the_other() -> None:
    with pytest.raises(ValueError, match="sequential"):
        fit(FederatedStrategy(2), module=Sources, train=CombinedLoader(two(), "sequential"))


def test_a_checkpoint_of_other_loaders_is_refused(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, save_last=True)
    fit(
        FederatedStrategy(2),
        module=Sources,
        train=two(),
        callbacks=[saver],
        enable_checkpointing=True,
        max_epochs=1,
    )
    other = {"a": two()["a"], "b": [loader(20)]}
    with pytest.raises(Exception, match="samples is"):
        trainer(FederatedStrategy(2), max_epochs=2).fit(Sources(), other, ckpt_path=saver.last_model_path)


def test_loaders_that_are_reloaded_leave_what_workers_remember() -> None:
    def run(reload: int) -> Any:
        strategy = FederatedStrategy(3, seed=0, local_steps=2, optimizer_state="keep")
        settings = {"max_epochs": 3, "reload_dataloaders_every_n_epochs": reload}
        return fit(strategy, module=Sources, train=two(), **settings)[0]

    assert_same_module(run(0), run(1))
