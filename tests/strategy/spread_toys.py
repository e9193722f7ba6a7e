"""Modules that do odd things when they visit a worker, for tests of visits in other processes."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import torch
from torch import Tensor

from tests.strategy.toys import Classifier


class Raises(Classifier):
    """Raise at the worker whose first sample says so."""

    def __init__(self, marked: float = 7.0, **settings: Any) -> None:
        super().__init__(**settings)
        self.marked = marked

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if (batch[0] == self.marked).any():
            self.act()
        return loss

    def act(self) -> None:
        raise ZeroDivisionError("now")


class Dies(Raises):
    """End the process of the visit in the midst of it."""

    def act(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Counts(Classifier):
    """Count its own steps."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.steps += 1
        return super().training_step(batch, batch_idx)


class Locked(Classifier):
    """Hold what cannot be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Hooked(Classifier):
    """Look at a gradient."""

    def __init__(self) -> None:
        super().__init__()
        next(self.parameters()).register_hook(torch.Tensor.abs)


class Warms(Classifier):
    """Change something of its own between rounds, which visits go by."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0

    def on_train_epoch_start(self) -> None:
        self.scale = 1.0 + self.current_epoch
        self.net[0].weight.requires_grad_(self.current_epoch > 0)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * self.scale
