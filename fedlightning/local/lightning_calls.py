"""The private calls of Lightning that local work needs, in one place: batch transfer, and hooks of callbacks.

``tests/local/test_lightning_calls.py`` fails clearly when they move.
"""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer import call
from torch.optim import Optimizer


def transfer_batch(module: pl.LightningModule, batch: Any, dataloader_idx: int = 0) -> Any:
    """Bring a batch to the module's device the way the Trainer does, with all the hooks around it.

    Runs the precision plugin's input conversion and the module's (or DataModule's)
    ``on_before_batch_transfer``, ``transfer_batch_to_device`` and ``on_after_batch_transfer``.
    """
    batch = module.trainer.precision_plugin.convert_input(batch)
    batch = module._on_before_batch_transfer(batch, dataloader_idx=dataloader_idx)
    return module._apply_batch_transfer_handler(batch, device=module.device, dataloader_idx=dataloader_idx)


def zero_gradients(module: pl.LightningModule, optimizer: Optimizer, batch_idx: int) -> None:
    """Zero the gradients the way Lightning's automatic optimization does, with all the hooks around it."""
    call._call_callback_hooks(module.trainer, "on_before_zero_grad", optimizer)
    module.on_before_zero_grad(optimizer)
    module.optimizer_zero_grad(module.current_epoch, batch_idx, optimizer)
