"""One worker holds any loader as it is, and trains like an ordinary fit; several need one that divides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler

from fedlightning.strategy import FederatedStrategy, NotFederatable, RoundFailed
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, samples, trainer

UPDATES = ["averaged", "sequential"]


class Unnumbered(IterableDataset[Any]):
    """Samples without numbers, and without a length."""

    def __iter__(self) -> Iterator[Any]:
        return iter(list(samples(26)))


class Numbered(Unnumbered):
    def __len__(self) -> int:
        return 26


class OwnIteration(DataLoader[Any]):
    def __iter__(self) -> Any:
        for batch in super().__iter__():
            yield [part + 0 for part in batch]


class Batches:
    """An iterable that is no DataLoader."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def weighted() -> WeightedRandomSampler:
    return WeightedRandomSampler([1.0] * 20 + [0.1] * 10, 24)


LOADERS: dict[str, Callable[[], Any]] = {
    "shuffled": partial(loader, 30),
    "iterable": lambda: DataLoader(Unnumbered(), batch_size=4),
    "iterable with length": lambda: DataLoader(Numbered(), batch_size=4),
    "own sampler": lambda: DataLoader(samples(), batch_size=4, sampler=weighted()),
    "own batch sampler": lambda: DataLoader(samples(), batch_sampler=[[0, 1, 2], [5, 9], [7, 8, 3, 4]]),
    "own iteration": lambda: OwnIteration(samples(), batch_size=4, shuffle=True),
    "no loader": lambda: Batches(list(loader(20, shuffle=False))),
}


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("work", [{"local_steps": 1}, {"local_steps": 3, "optimizer_state": "keep"}])
@pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__`")
def test_any_loader_trains_as_in_an_ordinary_fit(update: Any, kind: str, work: dict[str, Any]) -> None:
    module = partial(Classifier, schedule="optimizer_state" not in work)
    plain, plain_run = fit(module=module, train=LOADERS[kind]())
    strategy = FederatedStrategy(1, update=update, **work)
    ours, run = fit(strategy, module=module, train=LOADERS[kind]())
    assert_same_module(plain, ours)
    assert all(record.loss is not None for record in strategy.history)
    if work["local_steps"] == 1:
        assert run.global_step == plain_run.global_step == len(strategy.history)


class TwoSources(Classifier):
    """Takes a dict of batches, or one of them; some may be missing."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        parts = [part for part in batch.values() if part is not None] if isinstance(batch, dict) else [batch]
        losses = [nn.functional.cross_entropy(self.net(x), y) for x, y in parts]
        self.log("train/idx", float(batch_idx), batch_size=4)
        return torch.stack(losses).sum()


def two_loaders() -> dict[str, DataLoader[Any]]:
    return {"a": loader(30), "b": loader(14)}


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("mode", ["max_size_cycle", "max_size", "min_size"])
def test_several_loaders_are_combined_as_in_an_ordinary_fit(update: Any, mode: Any) -> None:
    plain, plain_run = fit(module=TwoSources, train=CombinedLoader(two_loaders(), mode), max_epochs=3)
    strategy = FederatedStrategy(1, update=update, local_steps=1)
    ours, run = fit(strategy, module=TwoSources, train=CombinedLoader(two_loaders(), mode), max_epochs=3)
    assert_same_module(plain, ours)
    assert run.callback_metrics == plain_run.callback_metrics


@pytest.mark.parametrize("mode", ["max_size", "min_size"])
def test_several_loaders_go_on_in_mid_epoch(mode: Any, tmp_path: Path) -> None:
    def combined() -> CombinedLoader:
        return CombinedLoader(two_loaders(), mode)

    def strategy() -> FederatedStrategy:
        return FederatedStrategy(1, update="sequential", local_steps=1)

    whole, _ = fit(strategy(), module=TwoSources, train=combined(), max_epochs=2)
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    fit(
        strategy(),
        module=TwoSources,
        train=combined(),
        max_steps=6,
        callbacks=[saver],
        enable_checkpointing=True,
    )
    resumed = TwoSources()
    run = trainer(strategy(), max_epochs=2)
    run.fit(resumed, combined(), loader(12, shuffle=False), ckpt_path=str(tmp_path / "step=6.ckpt"))
    assert_same_module(whole, resumed)


def test_a_local_epoch_of_unknown_length_is_refused() -> None:
    with pytest.raises(NotFederatable, match=r"has no length.*local_steps"):
        fit(FederatedStrategy(1), train=DataLoader(Unnumbered(), batch_size=4))


@pytest.mark.parametrize("workers", [1, 4])
def test_an_optimizer_may_evaluate_its_closure_several_times(workers: int) -> None:
    def module() -> Classifier:
        torch.manual_seed(1)
        return Classifier(lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3), schedule=False)

    strategy = FederatedStrategy(workers, local_steps=1)
    ours, run = fit(strategy, module=module, max_epochs=3)
    assert len(strategy.history) == run.global_step
    plain, _ = fit(module=module, max_epochs=3)
    if workers == 1:
        assert_same_module(plain, ours)
    else:
        losses = [record.loss for record in strategy.history]
        assert losses[-1] < losses[0]


class SometimesNone(Classifier):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        assert batch is not None
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("local_steps", [1, 3])
def test_none_in_place_of_a_batch_is_passed_over(local_steps: int) -> None:
    def batches() -> Batches:
        return Batches(
            [batch if number % 3 else None for number, batch in enumerate(loader(30, shuffle=False))]
        )

    module = partial(SometimesNone, schedule=False)
    plain, _ = fit(module=module, train=batches())
    strategy = FederatedStrategy(1, update="sequential", local_steps=local_steps)
    ours, _ = fit(strategy, module=module, train=batches())
    assert_same_module(plain, ours)


class Skips(Classifier):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx == 2 else None


def test_an_epoch_that_a_hook_cuts_short() -> None:
    plain, plain_run = fit(module=Skips, max_epochs=3)
    ours, run = fit(FederatedStrategy(1, local_steps=1), module=Skips, max_epochs=3)
    assert_same_module(plain, ours)
    assert run.global_step == plain_run.global_step == 6


WORK = [{"local_steps": 1}, {"local_epochs": 1, "optimizer_state": "keep"}]


@pytest.mark.parametrize("work", WORK)
def test_loaders_that_are_reloaded_at_one_worker(work: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1}
    module = partial(Classifier, schedule=False)
    plain, _ = fit(module=module, **settings)
    ours, _ = fit(FederatedStrategy(1, **work), module=module, **settings)
    assert_same_module(plain, ours)


@pytest.mark.parametrize("work", WORK)
def test_loaders_that_are_reloaded_leave_what_several_workers_remember(work: dict[str, Any]) -> None:
    def run(reload: int) -> Any:
        module = partial(Classifier, schedule=False)
        strategy = FederatedStrategy(3, seed=0, **work)
        return fit(strategy, module=module, max_epochs=3, reload_dataloaders_every_n_epochs=reload)[0]

    assert_same_module(run(0), run(1))


class Refuses(Classifier):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        raise KeyError("no such patient")


class OwnError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class RaisesOwn(Classifier):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        raise OwnError(7)


def test_what_a_module_raises_can_be_caught_by_its_own_kind() -> None:
    with pytest.raises(
        KeyError, match="worker 'worker-0', round 0, local step 0: KeyError: 'no such patient'"
    ):
        fit(FederatedStrategy(2), module=Refuses)
    with pytest.raises(OwnError) as caught:
        fit(FederatedStrategy(1, local_steps=1), module=RaisesOwn)
    assert isinstance(caught.value, RoundFailed)
    assert caught.value.code == 7
    assert caught.value.round == 0


def test_a_loader_that_raises_is_named() -> None:
    def batches() -> Iterator[Any]:
        yield next(iter(loader()))
        raise OSError("bad sector")

    with pytest.raises(RoundFailed, match="worker 'worker-0', round 0: OSError: bad sector"):
        fit(FederatedStrategy(1, local_steps=1), train=batches(), max_epochs=1)


def test_callbacks_find_the_users_loader_behind_the_plans() -> None:
    train = loader(30)
    _, run = fit(FederatedStrategy(1, local_steps=1), train=train)
    assert run.train_dataloader.dataset is train.dataset
    assert run.train_dataloader.sampler is train.sampler
    assert run.train_dataloader.num_workers == 0
    assert len(run.train_dataloader) == len(train)
