"""What Lightning gives a user goes on working: callbacks, loggers, checkpoints, hooks, evaluation."""

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
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fedlightning.algorithms import Plan
from fedlightning.data import Explicit, FederatedDataLoader, FederatedDataset, Natural
from fedlightning.strategy import FederatedStrategy
from fedlightning.workers import VirtualWorker
from tests.strategy.toys import Classifier, Memo, assert_same_module, fit, loader, samples, trainer

UPDATES = ["averaged", "sequential"]


@pytest.mark.parametrize("name", ["federated", "federated_averaged", "federated_sequential"])
def test_registered_names(name: str) -> None:
    run = trainer(name)
    assert isinstance(run.strategy, FederatedStrategy)
    assert run.strategy.settings.update == ("sequential" if name == "federated_sequential" else "averaged")
    run.fit(Classifier(), loader(40))
    assert len(run.strategy.federation.members) == 10


@pytest.mark.parametrize("update", UPDATES)
def test_global_step_counts_rounds(update: Any) -> None:
    strategy = FederatedStrategy(3, update=update, rounds_per_epoch=4)
    _, run = fit(strategy, max_epochs=2)
    assert run.global_step == 8
    assert [record.round for record in strategy.history] == list(range(8))
    assert all(len(record.workers) == (3 if update == "averaged" else 1) for record in strategy.history)


@pytest.mark.parametrize(
    ("limits", "rounds"), [({"max_steps": 3, "max_epochs": -1}, 3), ({"fast_dev_run": 2}, 2)]
)
def test_limits_count_rounds(limits: dict[str, Any], rounds: int) -> None:
    _, run = fit(FederatedStrategy(2, rounds_per_epoch=4), **limits)
    assert run.global_step == rounds


class NotesBatches(Classifier):
    """Keeps the sum of every batch that it trains on."""

    def __init__(self) -> None:
        super().__init__()
        self.sums: list[float] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.sums.append(batch[0].sum().item())
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("work", [{"local_steps": 1}, {"local_steps": 2}, {}])
@pytest.mark.parametrize("who", [{"workers": 1}, {"workers": 3}, {"workers": 3, "cohort_size": 2}])
@pytest.mark.parametrize("update", UPDATES)
def test_overfitting_sees_the_same_batches_in_every_epoch(
    update: Any, who: dict[str, Any], work: dict[str, Any]
) -> None:
    module, run = fit(
        FederatedStrategy(update=update, rounds_per_epoch=3, **who, **work),
        module=NotesBatches,
        overfit_batches=2,
        max_epochs=3,
    )
    assert isinstance(module, NotesBatches)
    assert run.global_step == 6
    first, second, third = torch.tensor(module.sums).chunk(3)
    assert first.tolist() == second.tolist() == third.tolist()


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


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize(
    "settings",
    [{"local_steps": 1}, {"local_steps": 2}, {"optimizer_state": "keep"}],
    ids=["gradients", "steps", "keep"],
)
def test_a_run_that_goes_on_from_an_epochs_checkpoint_ends_in_the_same_bits(
    update: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    def strategy() -> FederatedStrategy:
        return FederatedStrategy(3, update=update, cohort_size=2, seed=0, **settings)

    whole, _ = fit(strategy(), max_epochs=4)
    saver = ModelCheckpoint(tmp_path, save_last=True)
    fit(strategy(), max_epochs=2, callbacks=[saver], enable_checkpointing=True)
    resumed = Classifier()
    run = trainer(strategy(), max_epochs=4)
    run.fit(resumed, loader(), loader(12, shuffle=False), ckpt_path=saver.last_model_path)
    assert [record.round for record in run.strategy.history] == list(range(run.global_step))
    assert_same_module(whole, resumed)


def test_a_server_optimizer_and_its_scheduler_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    def strategy() -> FederatedStrategy:
        return FederatedStrategy(
            3,
            seed=0,
            server_optimizer=partial(torch.optim.Adam, lr=0.01),
            server_scheduler=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5),
        )

    whole, _ = fit(strategy(), max_epochs=4)
    saver = ModelCheckpoint(tmp_path, save_last=True)
    fit(strategy(), max_epochs=2, callbacks=[saver], enable_checkpointing=True)
    resumed = Classifier()
    trainer(strategy(), max_epochs=4).fit(
        resumed, loader(), loader(12, shuffle=False), ckpt_path=saver.last_model_path
    )
    assert_same_module(whole, resumed)


def test_an_ordinary_trainer_loads_our_checkpoint(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, save_last=True)
    fit(FederatedStrategy(2), callbacks=[saver], enable_checkpointing=True)
    module = Classifier()
    trainer(max_epochs=3).fit(module, loader(), ckpt_path=saver.last_model_path)


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


class Hooks(Classifier):
    """Overrides the hooks around a batch and writes down what reached them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.seen.append(("before", type(batch).__name__))
        return batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        self.seen.append(("transfer", type(batch).__name__))
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.seen.append(("after", type(batch).__name__))
        x, y = batch
        return [x * 2, y]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(("batch start", type(batch).__name__))


@pytest.mark.parametrize("local_steps", [1, 2])
def test_batch_hooks_see_the_workers_batches_and_never_a_plan(local_steps: int) -> None:
    bob = VirtualWorker(id="bob")
    module, _ = fit(
        FederatedStrategy([bob], local_steps=local_steps), module=Hooks(), max_epochs=1, limit_val_batches=0
    )
    of_batches = [name for name, kind in module.seen if kind == "list"]
    assert of_batches == ["before", "transfer", "after"] * 8
    assert {kind for name, kind in module.seen if name == "batch start"} == {"Plan"}
    assert "_on_before_batch_transfer" not in vars(module)
    copy.deepcopy(module)


def test_batch_hooks_change_what_is_learned() -> None:
    """The same hooks as in a plain fit, with the same bits."""
    plain, _ = fit(module=Hooks)
    ours, _ = fit(FederatedStrategy(1, local_steps=1), module=Hooks)
    assert_same_module(plain, ours)


class OrderedHooks(Classifier):
    """Writes down the hooks of one optimizer step."""

    def __init__(self) -> None:
        super().__init__()
        self.trace: list[str] = []

    def training_step(self, *args: Any) -> Tensor:
        self.trace.append("training_step")
        return super().training_step(*args)

    def on_before_zero_grad(self, *args: Any) -> None:
        self.trace.append("on_before_zero_grad")

    def backward(self, *args: Any, **kwargs: Any) -> None:
        self.trace.append("backward")
        super().backward(*args, **kwargs)

    def on_before_backward(self, loss: Tensor) -> None:
        self.trace.append("on_before_backward")

    def on_after_backward(self) -> None:
        self.trace.append("on_after_backward")

    def on_before_optimizer_step(self, *args: Any) -> None:
        self.trace.append("on_before_optimizer_step")

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        self.trace.append("configure_gradient_clipping")


def test_a_local_step_calls_hooks_in_lightnings_order() -> None:
    plain, _ = fit(module=OrderedHooks(), max_epochs=1)
    ours, _ = fit(FederatedStrategy(1), module=OrderedHooks(), max_epochs=1)
    # The round itself zeroes gradients once more, after the local steps.
    assert ours.trace == [*plain.trace, "on_before_zero_grad"]


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


def test_frozen_parts_stay_and_unused_parts_do_not_disturb() -> None:
    class Partly(Classifier):
        def __init__(self) -> None:
            super().__init__(lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9))
            self.net[0].requires_grad_(False)
            self.unused = nn.Linear(3, 3)

    for settings in ({"local_steps": 1}, {}):
        torch.manual_seed(0)
        module = Partly()
        before = copy.deepcopy(module.state_dict())
        fit(FederatedStrategy(3, **settings), module=module)
        for name in ("net.0.weight", "unused.weight"):
            assert torch.equal(module.state_dict()[name], before[name])
        assert not torch.equal(module.state_dict()["net.4.weight"], before["net.4.weight"])


def test_a_step_that_returns_none_is_skipped() -> None:
    class Skips(Classifier):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx % 2 else loss

    make = partial(Skips, schedule=False)
    plain, _ = fit(module=make, max_epochs=1)
    ours, _ = fit(FederatedStrategy(1), module=make, max_epochs=1)
    again, _ = fit(FederatedStrategy(1, local_steps=1), module=make, max_epochs=1)
    assert_same_module(plain, again)
    assert_same_module(plain, ours)


def test_the_current_plan_is_data_free() -> None:
    strategy = FederatedStrategy(2)
    fit(strategy)
    assert isinstance(strategy.current_plan, Plan)
    assert repr(strategy.current_plan) == "Plan(round=1, workers=['worker-0', 'worker-1'])"


def test_a_named_part_lies_at_the_worker_of_that_name() -> None:
    partition = Explicit({"bob": range(20), "alice": range(20, 30)})
    strategy = FederatedStrategy([VirtualWorker(id="alice"), VirtualWorker(id="bob")], partition)
    fit(strategy)
    assert {name: m.samples for name, m in strategy.federation.members.items()} == {"alice": 10, "bob": 20}


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


def test_a_second_fit_is_a_run_of_its_own() -> None:
    strategy = FederatedStrategy(3, seed=0)
    first, run = fit(strategy)
    L.seed_everything(3, verbose=False)
    second = Classifier()
    run.fit_loop.epoch_progress.reset()
    run.fit(second, loader())
    assert [record.round for record in strategy.history] == [0, 1]
    assert_same_module(first, second)


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
