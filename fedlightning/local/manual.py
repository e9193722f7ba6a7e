"""A local step under manual optimization: the module steps its optimizers itself, or gathers gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torch.optim import Optimizer

from fedlightning.local.known import known
from fedlightning.local.logs import LogRecorder
from fedlightning.local.stepping import training_loss


class ManualOptimization:
    """Let a module train on the batches of a visit.

    Args:
        module: The module at the worker.
        optimizers: Its optimizers, at the worker.
        logs: Records what the steps log.

    Attributes:
        leaves_gradients: Whether the last step computed gradients, and no optimizer stepped along them.
    """

    def __init__(
        self, module: pl.LightningModule, optimizers: Sequence[Optimizer], logs: LogRecorder
    ) -> None:
        self._module = module
        self._optimizers = optimizers
        self._logs = logs
        self.leaves_gradients = False

    def step(self, batch: Any, batch_idx: int, *, passes_batch_idx: bool, last: bool) -> Tensor | None:
        """Train on one batch; as `AutomaticOptimization.step`, but that the loss is told only by some."""
        before = self._gradients() if last else []
        with _noted_steps(self._optimizers if last else ()) as stepped:
            loss = training_loss(self._module, batch, batch_idx if passes_batch_idx else None, self._logs)
        if last:
            self.leaves_gradients = not stepped and self._gradients() != before
        return None if loss is None else loss.detach().clone()

    def _gradients(self) -> list[tuple[int, int] | None]:
        """Return what changes when a gradient does: its tensor, and how often that was written to."""
        gradients = (parameter.grad for parameter in known(self._module).parameters)
        return [None if grad is None else (id(grad), grad._version) for grad in gradients]


@contextmanager
def _noted_steps(optimizers: Sequence[Optimizer]) -> Iterator[list[Optimizer]]:
    """Collect the optimizers that step within the block."""
    stepped: list[Optimizer] = []
    hooks = [
        optimizer.register_step_post_hook(lambda own, *_: stepped.append(own)) for optimizer in optimizers
    ]
    try:
        yield stepped
    finally:
        for hook in hooks:
            hook.remove()
