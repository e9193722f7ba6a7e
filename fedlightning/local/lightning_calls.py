"""The private calls of Lightning that local work needs, in one place: batches, hooks, a Trainer to stand in.

``tests/local/test_lightning_calls.py`` fails clearly when they move.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer import call
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch.optim import Optimizer


def transfer_batch(module: pl.LightningModule, batch: Any, dataloader_idx: int = 0) -> Any:
    """Bring a batch to the module's device the way the Trainer does, with all the hooks around it.

    Runs the precision plugin's input conversion and the module's (or DataModule's)
    ``on_before_batch_transfer``, ``transfer_batch_to_device`` and ``on_after_batch_transfer``.
    """
    batch = module.trainer.precision_plugin.convert_input(batch)
    batch = module._on_before_batch_transfer(batch, dataloader_idx=dataloader_idx)
    return module._apply_batch_transfer_handler(batch, device=module.device, dataloader_idx=dataloader_idx)


def step_arguments(step: Callable[..., Any], batch_idx: int) -> tuple[int, ...]:
    """Return what a validation step takes after the batch: its number, and that of its loader, or neither."""
    numbers = (batch_idx,) if is_param_in_hook_signature(step, "batch_idx", min_args=2) else ()
    takes_loader = is_param_in_hook_signature(step, "dataloader_idx", explicit=True)
    return (*numbers, 0) if takes_loader else numbers


def zero_gradients(module: pl.LightningModule, optimizer: Optimizer, batch_idx: int) -> None:
    """Zero the gradients the way Lightning's automatic optimization does, with all the hooks around it."""
    call._call_callback_hooks(module.trainer, "on_before_zero_grad", optimizer)
    module.on_before_zero_grad(optimizer)
    module.optimizer_zero_grad(module.current_epoch, batch_idx, optimizer)


def attach(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Make a Trainer that never fits the one of a module, for the hooks that are called by way of it."""
    trainer.strategy.connect(module)
    trainer._data_connector.attach_data(module)
    trainer.state.fn = TrainerFn.FITTING
    trainer.training = True


def callbacks_of(trainer: pl.Trainer) -> list[pl.Callback]:
    """Return the callbacks of a Trainer."""
    callbacks: list[pl.Callback] = getattr(trainer, "callbacks")  # noqa: B009 - untyped, set by a connector
    return callbacks


def set_progress(trainer: pl.Trainer, current_epoch: int, global_step: int) -> None:
    """Set what ``trainer.current_epoch`` and ``trainer.global_step`` return."""
    loop = trainer.fit_loop
    loop.epoch_progress.current.completed = current_epoch
    loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = global_step
    loop.epoch_loop.manual_optimization.optim_step_progress.total.completed = global_step
