"""What a module, its hooks and callbacks log reaches Lightning's loggers as in an ordinary fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from fedlightning.strategy import FederatedStrategy
from tests.strategy.toys import Classifier, Memo, fit, loader

UPDATES = ["averaged", "sequential"]


class LogsAtTheEnd(Classifier):
    """Logs from a hook of the Trainer's batch, averaged over the epoch."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.log("number", torch.tensor(float(batch_idx)), on_step=False, on_epoch=True)


def test_what_hooks_log_is_weighted_by_the_samples_of_the_round() -> None:
    # Batches of 4, 4 and 2 samples, and rounds of as many.
    _, plain = fit(module=LogsAtTheEnd, train=loader(10))
    _, alone = fit(FederatedStrategy(1, local_steps=1), module=LogsAtTheEnd, train=loader(10))
    assert plain.callback_metrics["number"] == alone.callback_metrics["number"] == pytest.approx(0.8)
    # Two workers of 7 samples: rounds of 8 and 6.
    _, run = fit(FederatedStrategy(2, local_steps=1), module=LogsAtTheEnd, train=loader(14))
    assert run.callback_metrics["number"] == pytest.approx(6 / 14)


class OwnLog(Classifier):
    """Logs everything under a name of its own."""

    def log(self, name: str, value: Any, **settings: Any) -> None:
        super().log(f"own/{name}", value, **settings)


def test_a_module_that_overrides_log_logs_as_in_an_ordinary_fit() -> None:
    _, plain = fit(module=OwnLog)
    _, ours = fit(FederatedStrategy(1, local_steps=1), module=OwnLog)
    assert ours.callback_metrics == plain.callback_metrics
    assert "own/train/loss_epoch" in ours.callback_metrics


@pytest.mark.parametrize("work", [{"local_steps": 1}, {}])
@pytest.mark.parametrize("update", UPDATES)
def test_an_overridden_log_is_called_once_for_each_value(update: Any, work: dict[str, Any]) -> None:
    _, own = fit(FederatedStrategy(4, update=update, **work), module=OwnLog)
    _, usual = fit(FederatedStrategy(4, update=update, **work))
    assert own.callback_metrics == {f"own/{name}": value for name, value in usual.callback_metrics.items()}


def test_learning_rate_monitor_sees_the_workers_rate_by_round() -> None:
    log = Memo()
    fit(
        FederatedStrategy(2, rounds_per_epoch=4),
        callbacks=[LearningRateMonitor("step")],
        logger=log,
        max_epochs=1,
    )
    rates = [entry["lr-Adam"] for _, entry in log.entries if "lr-Adam" in entry]
    assert rates == pytest.approx([0.01, 0.01, 0.009, 0.009])


def test_csv_and_tensorboard(tmp_path: Path) -> None:
    loggers = [CSVLogger(tmp_path, name="csv", version=0), TensorBoardLogger(tmp_path, name="tb", version=0)]
    fit(FederatedStrategy(2), logger=loggers)
    header = (tmp_path / "csv" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    assert {"train/loss_step", "train/loss_epoch", "val/acc"} <= set(header.split(","))
    assert list((tmp_path / "tb").rglob("events.out.tfevents.*"))
