"""A module for workers in other processes that does not come back soon from its second visit."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn


class Sleeps(L.LightningModule):
    """Says in a file that it is at work in the second round, and then is so until another file is there."""

    def __init__(self, says: str, until: str) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.says, self.until = Path(says), Path(until)
        self.net = nn.Linear(4, 3)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.trainer.global_step == 1:
            self.says.touch()
            while not self.until.exists():
                time.sleep(0.05)
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
