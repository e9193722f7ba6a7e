"""Training beside the module's own: a second model on the same batches, of which nobody is told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from fedlightning.local.metrics import MetricState, put_states, take_states
from fedlightning.local.visit_steps import VisitSteps


class Aside:
    """Keep a visit's records, metrics, buffers and optimizer states out of what a block does.

    Args:
        module: The module.
        optimizers: Its optimizers; within the block they have states of their own, empty at first.
        steps: The visit's steps.
    """

    def __init__(
        self, module: pl.LightningModule, optimizers: Sequence[Optimizer], steps: VisitSteps
    ) -> None:
        self._module = module
        self._optimizers = optimizers
        self._steps = steps
        self._states: list[defaultdict[Tensor, Any]] = [defaultdict(dict) for _ in optimizers]
        self._metrics: tuple[MetricState, ...] = ()
        self._buffers: list[Tensor] = []

    def __enter__(self) -> None:
        """Begin, or go on."""
        self._exchange_states()
        self._metrics = take_states(self._module)
        self._buffers = [buffer.detach().clone() for buffer in self._module.buffers()]
        self._steps.silent += 1

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        """Put back what the visit had."""
        self._steps.silent -= 1
        for buffer, before in zip(self._module.buffers(), self._buffers, strict=True):
            buffer.copy_(before)
        put_states(self._module, self._metrics)
        self._exchange_states()

    def _exchange_states(self) -> None:
        for position, optimizer in enumerate(self._optimizers):
            optimizer.state, self._states[position] = self._states[position], optimizer.state
