"""A local step under automatic optimization: what Lightning's own loop does with a batch, at a worker.

Every hook of module and callbacks is called where Lightning calls it, by Lightning's own precision plugin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from fedlightning.local.lightning_calls import take_step, transfer_batch, zero_gradients
from fedlightning.local.logs import LogRecorder
from fedlightning.local.stepping import loss_of_arrived

LossTerm = Callable[[], Tensor]
"""What is to be added to a batch's loss, shape ``()``; asked for once ``training_step`` has returned."""


class AutomaticOptimization:
    """Step one optimizer through the batches of a visit.

    Args:
        module: The module at the worker.
        optimizer: Its optimizer, at the worker.
        logs: Records what the steps log.
        accumulate: Local batches whose gradients are accumulated into one step of the optimizer.
        add_to_loss: A term that an algorithm adds to each batch's loss, of which nobody is told.
    """

    def __init__(
        self,
        module: pl.LightningModule,
        optimizer: Optimizer,
        logs: LogRecorder,
        *,
        accumulate: int,
        add_to_loss: LossTerm | None = None,
    ) -> None:
        self._module = module
        self._optimizer = optimizer
        self._logs = logs
        self._accumulate = accumulate
        self._add_to_loss = add_to_loss
        self._accumulated = 0

    def step(self, batch: Any, batch_idx: int, *, passes_batch_idx: bool, last: bool) -> Tensor | None:
        """Train on one batch.

        Args:
            batch: As the worker's loader yields it.
            batch_idx: Its number within the local epoch.
            passes_batch_idx: Whether ``training_step`` takes it.
            last: Whether accumulated gradients must be used now: the epoch, or the visit, ends here.

        Returns:
            The loss, shape ``()``, without a graph; ``None`` where the module skips the step.
        """
        module, precision = self._module, self._module.trainer.precision_plugin
        losses: list[Tensor] = []
        arrived = transfer_batch(module, batch)

        @torch.enable_grad()
        def closure() -> Tensor | None:
            loss = loss_of_arrived(module, arrived, batch_idx if passes_batch_idx else None, self._logs)
            if self._accumulated == 0:
                zero_gradients(module, self._optimizer, batch_idx)
            if loss is not None:
                losses.append(loss.detach().clone())
                if self._add_to_loss is not None:
                    loss = loss + self._add_to_loss()
                scaled = precision.pre_backward(loss / self._accumulate, module)
                precision.backward(scaled, module, self._optimizer)
                precision.post_backward(scaled, module)
            return loss

        if last or self._accumulated + 1 == self._accumulate:
            take_step(module, self._optimizer, batch_idx, closure)
            self._accumulated = 0
        else:
            closure()
            self._accumulated += 1
        return losses[0] if losses else None
