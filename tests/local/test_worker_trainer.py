"""A module in a worker process finds a Trainer with the settings and the progress of the controller's."""

from __future__ import annotations

import lightning as L
import pytest
import torch

from fedlightning.local.lightning_calls import set_progress, transfer_batch
from fedlightning.local.worker_trainer import TrainerSettings, WorkerTrainer, lend_optimizers
from fedlightning.workers.remote import UnsendableError
from tests.strategy.remote_toys import Travelling


def test_settings_and_progress_are_those_of_the_controllers_trainer() -> None:
    own = L.Trainer(
        precision="bf16-mixed",
        gradient_clip_val=0.5,
        gradient_clip_algorithm="value",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
    )
    module = Travelling()
    trainer = WorkerTrainer(TrainerSettings.of(own), module)
    set_progress(trainer, current_epoch=2, global_step=9)
    assert module.trainer is trainer
    assert (module.current_epoch, module.global_step) == (2, 9)
    assert TrainerSettings.of(trainer) == TrainerSettings.of(own)
    assert type(trainer.precision_plugin) is type(own.precision_plugin)
    assert trainer.training


@pytest.mark.parametrize("manual", [False, True])
def test_batches_and_optimizers_reach_the_module(manual: bool) -> None:
    module = Travelling(manual=manual)
    set_progress(WorkerTrainer(TrainerSettings("32-true", None, None, 1, -1), module), 0, 4)
    batch = [torch.ones(2, 4), torch.tensor([0, 1])]
    assert torch.equal(transfer_batch(module, batch)[0], batch[0])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    lend_optimizers(module, [optimizer])
    assert module.optimizers(use_pl_optimizer=False) is optimizer
    assert module.global_step == 4


def test_a_precision_plugin_of_the_users_own_is_refused() -> None:
    class Own(L.pytorch.plugins.Precision):
        """Is code."""

    with pytest.raises(UnsendableError, match="Own is code"):
        TrainerSettings.of(L.Trainer(plugins=[Own()], logger=False, enable_checkpointing=False))
