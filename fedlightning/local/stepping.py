"""One training step of a LightningModule at a worker, up to its loss.

What follows the loss differs by path: ``gradient`` leaves gradients, ``training`` steps a local optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from fedlightning.local.lightning_calls import transfer_batch
from fedlightning.local.logs import LogRecorder


def training_loss(
    module: pl.LightningModule, batch: Any, batch_idx: int | None, logs: LogRecorder
) -> Tensor | None:
    """Run ``training_step`` on a batch of the worker's, in the Trainer's precision.

    Args:
        module: The module at the worker, attached to a Trainer.
        batch: As the worker's loader yields it.
        batch_idx: Its number within the local epoch; ``None`` if ``training_step`` takes none.
        logs: Told of the batch, for batch sizes.

    Returns:
        The loss with its graph, or ``None`` where the module skips the step, or optimizes manually and does
        not tell.

    Raises:
        TypeError: Under automatic optimization, ``training_step`` returned something else than a loss.
    """
    return loss_of_arrived(module, transfer_batch(module, batch), batch_idx, logs)


def loss_of_arrived(
    module: pl.LightningModule, batch: Any, batch_idx: int | None, logs: LogRecorder
) -> Tensor | None:
    """Run ``training_step`` on a batch that is on the module's device already; else as `training_loss`."""
    logs.start_step(batch)
    with module.trainer.precision_plugin.train_step_context():
        output = module.training_step(batch) if batch_idx is None else module.training_step(batch, batch_idx)
    return loss_of(output, required=module.automatic_optimization)


def loss_of(output: Any, *, required: bool) -> Tensor | None:
    """Find the loss in what ``training_step`` returned.

    Args:
        output: What it returned.
        required: Whether it must be, or hold, a loss, or else be ``None``.

    Raises:
        TypeError: It has no loss, and must have one.
    """
    if output is None or isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping) and isinstance(output.get("loss"), Tensor):
        loss: Tensor = output["loss"]
        return loss
    if not required:
        return None
    raise TypeError(
        "training_step must return a loss tensor, a dict with a 'loss' tensor, or None to skip the step; "
        f"got {type(output).__name__}."
    )
