"""Modules that do odd things when they visit a worker, for tests of visits in other processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fedlightning import FederatedStrategy
from fedlightning.local.vectorised import compiled
from tests.strategy.toys import Classifier, Memo, fit, loader


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


class Batchable(L.LightningModule):
    """Take steps that can be taken for several workers at once, with buffers and random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
        )

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


class TracedInProcesses(Batchable):
    """Have steps traced in processes, but not made faster, which takes a compiler and many seconds.

    Args:
        says: A file that is there as soon as a step has been traced in a process.
    """

    def __init__(self, says: Path) -> None:
        super().__init__()
        self.says = says
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        compiled.BACKEND = self._traced

    def _traced(self, graph: Any, inputs: list[Tensor]) -> Any:
        self.says.touch()
        return graph


def both(make: Callable[[], Any] = Classifier, **settings: Any) -> list[tuple[Any, Any, Memo]]:
    """Fit in one process, and in two."""
    fits = []
    for count in (None, 2):
        memo, train = Memo(), settings.get("train", lambda: loader(80))()
        rest = {name: value for name, value in settings.items() if name != "train"}
        strategy = FederatedStrategy(**{"workers": 40, "seed": 0, **rest}, processes=count)
        module, run = fit(strategy, module=make, train=train, logger=memo)
        fits.append((module, run.strategy, memo))
    return fits
