"""Lightning's callbacks go on working, on the global module and by rounds."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from torch import Tensor, nn

from fedlightning.strategy import FederatedStrategy
from tests.strategy.toys import Classifier, Memo, assert_same_module, fit, loader, trainer


class SeesModule(L.Callback):
    """Keeps copies of the module's parameters at validation and at checkpoints."""

    def __init__(self) -> None:
        self.validated: list[dict[str, Tensor]] = []

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.validated.append(copy.deepcopy(pl_module.state_dict()))


def test_validation_and_checkpoints_see_the_global_module(tmp_path: Path) -> None:
    seen = SeesModule()
    saver = ModelCheckpoint(tmp_path, monitor="val/acc", mode="max", save_top_k=-1, save_last=True)
    module, _ = fit(FederatedStrategy(3), callbacks=[seen, saver], enable_checkpointing=True, max_epochs=3)
    assert len(seen.validated) == 3
    for name, value in module.state_dict().items():
        assert torch.equal(seen.validated[-1][name], value)
    loaded = torch.load(saver.last_model_path, weights_only=True)
    for name, value in loaded["state_dict"].items():
        assert torch.equal(module.state_dict()[name], value)
    assert loaded["federation"]["state"]["round"] == 3


class AtEpochStarts(L.Callback):
    """Keeps the global module's parameters as each epoch begins."""

    def __init__(self) -> None:
        self.kept: list[list[Tensor]] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.kept.append([parameter.detach().clone() for parameter in pl_module.parameters()])


def test_weights_are_averaged_over_epochs_of_local_rounds_and_workers_take_the_annealed_rate() -> None:
    def module() -> Classifier:
        made = Classifier(partial(torch.optim.SGD, lr=0.1), schedule=False)
        made.net = nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(2, 8), nn.ReLU(), nn.Linear(8, 3))
        return made

    starts, log = AtEpochStarts(), Memo()
    averaging = StochasticWeightAveraging(0.05, swa_epoch_start=2, annealing_epochs=1)
    trained, _ = fit(
        FederatedStrategy(4, rounds_per_epoch=2),
        module=module,
        callbacks=[starts, averaging, LearningRateMonitor("step")],
        logger=log,
        max_epochs=4,
    )
    for parameter, *values in zip(trained.parameters(), *starts.kept[1:], strict=True):
        torch.testing.assert_close(parameter.detach(), torch.stack(values).mean(0))
    rates = [entry["lr-SGD"] for _, entry in log.entries if "lr-SGD" in entry]
    assert rates[:2] == pytest.approx([0.1, 0.1])
    assert rates[-1] == pytest.approx(0.05)


def test_early_stopping() -> None:
    stopper = EarlyStopping("val/loss", patience=0, min_delta=100.0)
    _, run = fit(FederatedStrategy(2), callbacks=[stopper], max_epochs=9)
    assert run.current_epoch == 2


def test_callbacks_see_every_local_step() -> None:
    class Norms(L.Callback):
        def __init__(self) -> None:
            self.norms: list[float] = []

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            gradients = [p.grad for p in pl_module.parameters()]
            self.norms.append(torch.nn.utils.get_total_norm(gradients).item())

    norms = Norms()
    strategy = FederatedStrategy(2)
    fit(strategy, callbacks=[norms], max_epochs=3)
    assert len(norms.norms) == sum(record.steps for record in strategy.history) == 24


class Found(Classifier):
    """Has a learning rate that can be found."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(schedule=False)
        self.lr = lr

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


@pytest.mark.parametrize("work", [{"local_steps": 1}, {}, {"optimizer_state": "keep"}])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_learning_rate_finder_leaves_no_trace_but_the_rate(
    workers: int, work: dict[str, Any], tmp_path: Path
) -> None:
    finder = LearningRateFinder(num_training_steps=3, early_stop_threshold=None)
    server = {} if work == {"local_steps": 1} else {"server_optimizer": partial(torch.optim.Adam, lr=0.01)}
    strategy = FederatedStrategy(workers, rounds_per_epoch=4, seed=0, **work, **server)
    found, run = fit(
        strategy, module=Found, callbacks=[finder], enable_checkpointing=True, default_root_dir=tmp_path
    )
    assert [record.round for record in strategy.history] == list(range(8))
    assert run.global_step == 8
    if workers > 1:  # alone, both draw from the process's random numbers, as in an ordinary fit
        module, _ = fit(
            FederatedStrategy(workers, rounds_per_epoch=4, seed=0, **work, **server),
            module=lambda: Found(found.lr),
        )
        assert_same_module(found, module)


class Sized(Classifier):
    """Has a batch size that can be found."""

    batch_size = 2

    def train_dataloader(self) -> Any:
        return loader(batch_size=self.batch_size)

    def val_dataloader(self) -> Any:
        return loader(12, batch_size=self.batch_size, shuffle=False)


def test_a_batch_size_finder_leaves_no_trace_but_the_size(tmp_path: Path) -> None:
    strategy, module = FederatedStrategy(3, rounds_per_epoch=4), Sized()
    finder = BatchSizeFinder(init_val=2, max_trials=2, steps_per_trial=2)
    run = trainer(strategy, callbacks=[finder], enable_checkpointing=True, default_root_dir=tmp_path)
    run.fit(module)
    assert module.batch_size == 4
    assert [record.round for record in strategy.history] == list(range(8))
    assert strategy.federation.batches == dict.fromkeys(strategy.federation.samples, 3)
