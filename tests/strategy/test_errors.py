"""What goes wrong says where, stops the run, and leaves nothing half done."""

from __future__ import annotations

import copy
import traceback
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler

from fedlightning.data import Dirichlet, Explicit
from fedlightning.strategy import FederatedStrategy, NotFederatable, RoundFailed
from fedlightning.workers import VirtualWorker
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, samples, trainer

POISON = 1e9
PARTS = [range(10), range(10, 20), range(20, 30)]


def poisoned() -> DataLoader[Any]:
    """Return a loader whose sample 19, at worker-1, makes `FailsAt` raise."""
    data = samples()
    data.tensors[0][19] = POISON
    return DataLoader(data, batch_size=4, shuffle=True)


class FailsAt(Classifier):
    """Raises at the poisoned sample from a given round on, and keeps the global module of every round."""

    def __init__(self, round: int) -> None:
        super().__init__()
        self.round = round
        self.started: list[dict[str, Tensor]] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if self.trainer.strategy.current_plan.round >= self.round and batch[0].max() == POISON:
            raise KeyError("the scanner is broken")
        return loss

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.started.append(copy.deepcopy(self.state_dict()))


def functions_of(error: BaseException) -> list[str]:
    """Return the names of the functions on an exception's traceback, outermost first."""
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


@pytest.mark.parametrize("update", ["averaged", "sequential"])
@pytest.mark.parametrize("work", [{"local_epochs": 1}, {"local_steps": 2}, {"local_steps": 1}])
def test_a_step_that_raises_stops_the_run_and_says_where(update: Any, work: dict[str, Any]) -> None:
    module = FailsAt(round=2)
    strategy = FederatedStrategy(3, Explicit(PARTS), update, seed=0, **work)
    with pytest.raises(RoundFailed, match="the scanner is broken") as caught:
        fit(strategy, module=module, train=poisoned(), max_epochs=6)

    error = caught.value
    assert error.worker == "worker-1"
    assert error.round >= 2
    assert f"worker 'worker-1', round {error.round}, local step {error.step}: KeyError" in str(error)
    assert isinstance(error.__cause__, KeyError)
    assert functions_of(error.__cause__)[-1] == "training_step"
    # Nothing half averaged: the module is that of the last completed round, and so is the history.
    assert len(strategy.history) == error.round
    assert len(module.started) == error.round + 1
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, module.started[-1][name]), name


def test_a_broken_sample_is_located_like_a_broken_step() -> None:
    class Broken(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> Any:
            if index == 7:
                raise OSError("bad sector")
            return samples()[index]

    with pytest.raises(RoundFailed, match=r"worker 'worker-1', round 0, local step \d: OSError: bad sector"):
        fit(FederatedStrategy(2), train=DataLoader(Broken(), batch_size=2))


BAD_SETTINGS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"workers": 0}, ValueError, "workers=0: a federation needs at least one"),
    ({"workers": []}, ValueError, "at least one worker"),
    ({"workers": 2.5}, TypeError, "workers must be a number"),
    ({"workers": "bob"}, TypeError, "got 'b'"),
    ({"workers": 3, "cohort_size": 4}, ValueError, r"cohort_size=4 is larger than the number .* \(3\)"),
    ({"cohort_size": 0}, ValueError, "cohort_size must be at least 1, got 0"),
    ({"local_steps": 1.5}, TypeError, "local_steps must be a whole number"),
    ({"local_steps": True}, TypeError, "local_steps must be a whole number"),
    ({"seed": "5"}, TypeError, "seed must be a whole number, or None"),
    ({"seed": 1.5}, TypeError, "seed must be a whole number"),
    ({"seed": True}, TypeError, "seed must be a whole number"),
    ({"rounds_per_epoch": -1}, ValueError, "rounds_per_epoch must be at least 1, got -1"),
    ({"local_steps": 2, "local_epochs": 2}, ValueError, "local_steps=2 and local_epochs=2 are both given"),
    ({"update": "avg"}, ValueError, "update must be one of 'averaged', 'sequential', got 'avg'"),
    ({"optimizer_state": "travel"}, ValueError, "go from worker to worker"),
    ({"optimizer_state": "lose"}, ValueError, "optimizer_state must be one of"),
    ({"partition": "iid"}, TypeError, "partition must be a Partitioner"),
    ({"server_optimizer": 1.0}, TypeError, "server_optimizer must build an optimizer"),
    ({"update": "sequential", "server_optimizer": torch.optim.SGD}, ValueError, "no average to step along"),
]


@pytest.mark.parametrize(("settings", "kind", "message"), BAD_SETTINGS)
def test_settings_are_checked_at_once(settings: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        FederatedStrategy(**settings)


def test_duplicate_worker_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="the id 'bob' more than once"):
        FederatedStrategy([VirtualWorker(id="bob"), VirtualWorker(id="bob")])


def test_unknown_strategy_option() -> None:
    with pytest.raises(TypeError, match="n_workers"):
        FederatedStrategy(n_workers=3)


def test_alpha_must_be_positive() -> None:
    with pytest.raises(ValueError, match="alpha"):
        FederatedStrategy(partition=Dirichlet(alpha=0))


def test_more_workers_than_samples() -> None:
    with pytest.raises(ValueError, match="31 is more than the 30 samples"):
        fit(FederatedStrategy(31))


def test_cohort_larger_than_the_workers_that_the_data_names() -> None:
    with pytest.raises(ValueError, match="cohort_size=11 is larger"):
        fit(FederatedStrategy(cohort_size=11))


def test_shards_without_a_full_batch() -> None:
    with pytest.raises(ValueError, match="no full batch to train on"):
        fit(FederatedStrategy(10), train=loader(drop_last=True))


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(samples())


def test_iterable_datasets_are_refused_with_what_is_possible() -> None:
    with pytest.raises(TypeError, match=r"(?i)iterable"):
        fit(FederatedStrategy(2), train=DataLoader(Stream(), batch_size=2))


def test_samplers_of_the_users_own_are_refused() -> None:
    sampler = WeightedRandomSampler([1.0] * 30, 30)
    with pytest.raises(TypeError, match=r"(?i)sampler"):
        fit(FederatedStrategy(2), train=DataLoader(samples(), batch_size=2, sampler=sampler))


class OwnStep(Classifier):
    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)


class OwnLog(Classifier):
    def log(self, *args: Any, **kwargs: Any) -> None:
        super().log(*args, **kwargs)


class Iterates(Classifier):
    def training_step(self, dataloader_iter: Any) -> Any:
        return None


class Sparse(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(5, 3, sparse=True)


class Grows(Classifier):
    """Collects into a buffer."""

    def __init__(self) -> None:
        super().__init__(schedule=False)
        self.register_buffer("seen", torch.zeros(1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.seen = torch.cat([self.seen, torch.ones(1)])
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("work", [{"local_steps": 1}, {}])
def test_a_buffer_that_changes_its_shape_is_named(work: dict[str, Any]) -> None:
    module = Grows()
    with pytest.raises(RoundFailed, match="the buffer 'seen' has changed its shape"):
        fit(FederatedStrategy(2, **work), module=module)
    assert module.seen.shape == (1,)


def test_a_strategy_of_two_trainers_is_refused() -> None:
    strategy = FederatedStrategy(2)
    trainer(strategy)
    with pytest.raises(NotFederatable, match="belongs to another Trainer"):
        trainer(strategy)


def test_sparse_gradients_are_refused_where_they_would_be_averaged() -> None:
    with pytest.raises(NotFederatable, match="words is an Embedding with sparse gradients"):
        fit(FederatedStrategy(2, local_steps=1), module=Sparse)


REFUSED: list[tuple[type[L.LightningModule], dict[str, Any], str]] = [
    (OwnStep, {}, "OwnStep overrides optimizer_step"),
    (OwnLog, {}, "OwnLog overrides log"),
    (Iterates, {}, "dataloader_iter"),
    (Classifier, {"devices": 2}, "devices=2"),
    (
        Classifier,
        {"callbacks": [L.pytorch.callbacks.StochasticWeightAveraging(swa_lrs=0.1)]},
        "StochasticWeightAveraging",
    ),
]


@pytest.mark.parametrize(("kind", "settings", "message"), REFUSED)
def test_what_is_not_supported_is_refused_at_fit(
    kind: type[L.LightningModule], settings: dict[str, Any], message: str
) -> None:
    module = kind()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(NotFederatable, match=message):
        fit(FederatedStrategy(2), module=module, **settings)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_trainer_can_fit_again_after_a_failure() -> None:
    def seeded() -> Classifier:
        L.seed_everything(3, verbose=False)
        return Classifier()

    run = trainer(FederatedStrategy(3, Explicit(PARTS), seed=0))
    with pytest.raises(RoundFailed):
        run.fit(FailsAt(round=0), poisoned())
    run.fit_loop.epoch_progress.reset()
    module = seeded()
    run.fit(module, loader())
    expected = seeded()
    trainer(FederatedStrategy(3, Explicit(PARTS), seed=0)).fit(expected, loader())
    assert_same_module(expected, module)
