"""The private parts of Lightning that we rely on: these fail first, and clearly, when upstream moves them."""

from __future__ import annotations

import inspect
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.trainer import call
from lightning.pytorch.utilities import CombinedLoader

from fedlightning.local.lightning_calls import transfer_batch
from fedlightning.strategy.lightning_calls import (
    as_device,
    awaits_train_loader,
    batches_ahead,
    combination_of,
    devices_of,
    epochs_processed,
    has_loader_states,
    skips_backward,
)
from tests.strategy.toys import Classifier, fit, loader, trainer


def test_callback_hooks_are_called_by_name() -> None:
    parameters = list(inspect.signature(call._call_callback_hooks).parameters)
    assert parameters[:2] == ["trainer", "hook_name"]


def test_devices_are_those_the_connector_chose() -> None:
    assert devices_of(trainer()) == [torch.device("cpu")]
    assert len(devices_of(trainer(devices=3))) == 3


def test_devices_of_a_cpu_may_be_numbers() -> None:
    assert as_device(3) == torch.device("cpu")
    assert as_device(torch.device("cuda", 1)) == torch.device("cuda", 1)


def test_what_the_training_loop_says_of_a_batch() -> None:
    class Asks(L.Callback):
        def __init__(self) -> None:
            self.answers: list[Any] = []

        def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
            self.answers.append(
                (skips_backward(trainer), batches_ahead(trainer), awaits_train_loader(trainer))
            )

    asks = Asks()
    fit(callbacks=[asks], train=iter_only(), max_epochs=1)
    assert asks.answers == [(False, 1, False), (False, 1, False), (False, 0, False)]
    run = trainer()
    assert not has_loader_states(run)
    run.fit_loop._combined_loader_states_to_load = [{}]
    assert has_loader_states(run)
    run.training = True
    assert awaits_train_loader(run)


def iter_only() -> Any:
    """Return a loader without a length, of three batches."""

    class IterOnly:
        def __iter__(self) -> Any:
            return iter(loader(12))

    return IterOnly()


def test_an_epoch_counts_before_the_hooks_of_its_end() -> None:
    class Counts(L.Callback):
        def __init__(self) -> None:
            self.seen: list[int] = []

        def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
            self.seen.append(epochs_processed(trainer))

        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.seen.append(epochs_processed(trainer))

    counts = Counts()
    fit(callbacks=[counts], limit_train_batches=1)
    assert counts.seen == [0, 1, 1, 2]


def test_the_batch_hooks_of_a_module() -> None:
    for name, parameters in {
        "_on_before_batch_transfer": ["self", "batch", "dataloader_idx"],
        "_apply_batch_transfer_handler": ["self", "batch", "device", "dataloader_idx"],
    }.items():
        assert list(inspect.signature(getattr(L.LightningModule, name)).parameters) == parameters


def test_transfer_runs_the_modules_hooks() -> None:
    class Doubles(Classifier):
        def on_after_batch_transfer(self, batch: torch.Tensor, dataloader_idx: int) -> torch.Tensor:
            return batch * 2

    module = Doubles()
    module.trainer = trainer()
    module.trainer.strategy.connect(module)
    module.trainer._data_connector.attach_data(module)
    assert transfer_batch(module, torch.ones(2)).tolist() == [2.0, 2.0]


def test_the_training_loop_passes_plans_where_we_expect_them() -> None:
    source = inspect.getsource(L.pytorch.loops.training_epoch_loop._TrainingEpochLoop.advance)
    order = ["convert_input", "_on_before_batch_transfer", '"batch_to_device"', "automatic_optimization.run"]
    positions = [source.index(name) for name in order]
    assert positions == sorted(positions)


def test_a_trainer_notes_what_it_is_being_restored_from() -> None:
    connector = inspect.getsource(L.pytorch.trainer.connectors.checkpoint_connector._CheckpointConnector)
    assert "load_model_state_dict(\n            self._loaded_checkpoint" in connector


def test_the_batch_size_of_what_hooks_log_can_be_told() -> None:
    results = L.pytorch.trainer.connectors.logger_connector.result._ResultCollection(training=True)
    results.batch_size = 3
    results.log("hook", "name", torch.tensor(1.0), on_epoch=True)
    assert results.batch_size == 3
    assert results["hook.name"].cumulated_batch_size == 3


def test_how_loaders_are_combined_is_known_when_their_lengths_are_asked_for() -> None:
    seen = []

    class Sized(list[Any]):
        def __len__(self) -> int:
            seen.append(combination_of(run)[0])
            return super().__len__()

    run = trainer(max_epochs=1)
    loaders = CombinedLoader({"a": Sized([1, 2]), "b": [3]}, "min_size")
    with pytest.raises(TypeError):  # such batches are of no use to the module
        run.fit(Classifier(), loaders)
    assert seen[:1] == ["min_size"]
