"""What goes wrong says where, stops the run, and leaves nothing half done."""

from __future__ import annotations

import copy
import traceback
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fedlightning.data import Explicit
from fedlightning.strategy import FederatedStrategy, NotFederatable, RoundFailed
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


def test_sparse_gradients_are_refused_where_they_would_be_averaged() -> None:
    with pytest.raises(NotFederatable, match="words is an Embedding with sparse gradients"):
        fit(FederatedStrategy(2, local_steps=1), module=Sparse)


REFUSED: list[tuple[type[L.LightningModule], dict[str, Any], str]] = [
    (Iterates, {}, "dataloader_iter"),
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
