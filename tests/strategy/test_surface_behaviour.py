"""What features of Lightning do with four uneven workers, where no ordinary fit is there to compare with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    BasePredictionWriter,
    DeviceStatsMonitor,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    ModelCheckpoint,
)
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fedlightning.data import Explicit, FederatedDataLoader, FederatedDataset
from fedlightning.strategy import FederatedStrategy
from fedlightning.workers import KeepData, RefusedByPolicy, VirtualWorker
from tests.strategy.surface_toys import Quiet, Toggles, WarmsUp
from tests.strategy.toys import Classifier, Memo, assert_same_module, fit, loader, samples, trainer

UPDATES = ["averaged", "sequential"]
UNEVEN = [range(3), range(3, 8), range(8, 17), range(17, 30)]
BATCHES = [1, 2, 3, 4]  # of four samples, in a local epoch of each


def uneven(update: Any = "averaged", **settings: Any) -> FederatedStrategy:
    return FederatedStrategy(4, Explicit(UNEVEN), update, seed=0, **settings)


def scaled(growth_interval: int = 2) -> dict[str, Any]:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=growth_interval)
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}


def scales(strategy: FederatedStrategy) -> list[float]:
    """Return the loss scale that each worker keeps."""
    kept = strategy.federation.state_dict(round=99)
    return [kept[name]["memory"]["precision"]["scale"] for name in sorted(kept)]


class Narrow(Classifier):
    """Without batch norm, so that single samples will do."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        super().__init__(lambda own: torch.optim.SGD(own, lr=0.1), schedule=False)
        self.net = nn.Linear(4, 3)


@pytest.mark.parametrize("update", UPDATES)
def test_every_worker_has_a_loss_scale_of_its_own(update: Any) -> None:
    strategy = uneven(update)
    _, run = fit(strategy, module=Narrow, max_epochs=2, **scaled())
    # It doubles after every two steps of the worker.
    assert scales(strategy) == [8.0 * 2 ** (2 * count // 2) for count in BATCHES]
    assert run.precision_plugin.scaler.get_scale() == 8.0


@pytest.mark.parametrize("update", UPDATES)
def test_a_step_that_overflows_lowers_the_scale_of_its_worker_alone(update: Any) -> None:
    data = samples()
    data.tensors[0][1] = math.inf  # at the first worker, whose only batch is skipped
    strategy = uneven(update)
    module, _ = fit(
        strategy, module=Narrow, train=DataLoader(data, batch_size=4), max_epochs=1, **scaled(100)
    )
    assert scales(strategy) == [4.0, 8.0, 8.0, 8.0]
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


@pytest.mark.parametrize("work", [{"local_steps": 1}, {"local_steps": 2}])
def test_loss_scales_are_part_of_the_checkpoint(work: dict[str, Any], tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    strategy = uneven(**work)
    whole, run = fit(
        strategy, module=Narrow, callbacks=[saver], enable_checkpointing=True, max_epochs=2, **scaled()
    )
    resumed, again = Narrow(), uneven(**work)
    trainer(again, max_epochs=2, **scaled()).fit(
        resumed, loader(), loader(12, shuffle=False), ckpt_path=str(tmp_path / "step=3.ckpt")
    )
    assert_same_module(whole, resumed)
    if work["local_steps"] > 1:
        assert scales(strategy) == scales(again) != [8.0] * 4
    assert run.precision_plugin.scaler.get_scale() == again.precision_plugin.scaler.get_scale()


class QuietNarrow(Quiet):
    def __init__(self) -> None:
        torch.manual_seed(1)
        super().__init__(schedule=False)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 3))


@pytest.mark.parametrize("work", [{"local_steps": 1}, {"local_steps": 2}, {}])
@pytest.mark.parametrize("update", UPDATES)
def test_a_compiled_module_trains_as_the_same_one_does_uncompiled(update: Any, work: dict[str, Any]) -> None:
    torch.compiler.reset()
    module = QuietNarrow()
    L.seed_everything(3, verbose=False)
    run = trainer(uneven(update, **work))
    run.fit(torch.compile(module, backend="eager"), loader(), loader(12, shuffle=False))
    L.seed_everything(3, verbose=False)
    usual = QuietNarrow()
    trainer(uneven(update, **work)).fit(usual, loader(), loader(12, shuffle=False))
    assert_same_module(usual, module)
    assert run.lightning_module is module


def test_a_compiled_module_may_log() -> None:
    torch.compiler.reset()
    module = Narrow()
    run = trainer(uneven())
    run.fit(torch.compile(module, backend="eager"), loader())
    usual = trainer(uneven())
    usual.fit(Narrow(), loader())
    assert run.callback_metrics.keys() == usual.callback_metrics.keys()
    assert run.callback_metrics["train/loss"] == pytest.approx(float(usual.callback_metrics["train/loss"]))


class GlobalModules(L.Callback):
    """Keeps the global module's weights of every round."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self.weights.append(next(pl_module.parameters()).detach().clone())


@pytest.mark.parametrize("work", [{"local_steps": 1}, {}])
@pytest.mark.parametrize("update", UPDATES)
def test_an_average_over_time_is_that_of_the_global_modules(update: Any, work: dict[str, Any]) -> None:
    seen = GlobalModules()
    average = EMAWeightAveraging(decay=0.9)
    module, _ = fit(uneven(update, **work), module=Narrow, callbacks=[seen, average])
    expected = seen.weights[0]
    for weight in seen.weights[1:]:
        expected = 0.9 * expected + 0.1 * weight
    torch.testing.assert_close(next(module.parameters()).detach(), expected)


@pytest.mark.parametrize("update", UPDATES)
def test_accumulation_over_rounds_follows_its_schedule(update: Any) -> None:
    strategy = uneven(update, local_steps=1, rounds_per_epoch=4)
    schedule = GradientAccumulationScheduler({0: 1, 1: 2})
    _, run = fit(strategy, module=Narrow, callbacks=[schedule])
    assert len(strategy.history) == 8
    assert run.global_step == 4 + 2


def test_a_warm_up_runs_over_epochs() -> None:
    _, run = fit(FederatedStrategy(4, seed=0), module=lambda: WarmsUp(schedule=False), max_epochs=3)
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.9**2)


@pytest.mark.parametrize("update", UPDATES)
def test_toggled_optimizers_leave_what_requires_a_gradient(update: Any) -> None:
    strategy = FederatedStrategy(4, update=update, seed=0)
    module, _ = fit(strategy, module=Toggles)
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert strategy.history[-1].steps > 0


def test_device_statistics_are_logged_with_every_round() -> None:
    log, strategy = Memo(), uneven(local_steps=2)
    fit(strategy, module=Narrow, callbacks=[DeviceStatsMonitor(cpu_stats=True)], logger=log)
    ends = [step for step, entry in log.entries if any("on_train_batch_end" in name for name in entry)]
    assert len(ends) == len(strategy.history)


class Kept(BasePredictionWriter):
    def __init__(self) -> None:
        super().__init__("batch")
        self.predictions: list[Any] = []

    def write_on_batch_end(self, trainer: Any, pl_module: Any, prediction: Any, *where: Any) -> None:
        self.predictions.append(prediction)


class Predicts(Narrow):
    def predict_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self.net(batch[0])


def test_a_prediction_writer_gets_predictions_here_and_pointers_elsewhere() -> None:
    workers = [VirtualWorker(id=name, policy=KeepData()) for name in ("ann", "bob")]
    parts = Explicit([range(4), range(4, 12)])
    dataset = FederatedDataset.from_dataset(samples(12), workers, parts, private=True)
    writer = Kept()
    run = trainer(uneven(), callbacks=[writer])
    run.predict(Predicts(), [loader(12, shuffle=False), FederatedDataLoader(dataset, batch_size=4)])
    here, there = writer.predictions[:3], writer.predictions[3:]
    assert [tuple(prediction.shape) for prediction in here] == [(4, 3)] * 3
    assert [prediction.location.id for prediction in there] == ["ann", "bob", "bob"]
    with pytest.raises(RefusedByPolicy):
        there[0].get()
