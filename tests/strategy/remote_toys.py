"""A LightningModule that can be built in another process, with all that makes equality hard."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy


class Travelling(L.LightningModule):
    """Classify with batch norm, dropout, a metric, momentum and a schedule; or optimize by hand."""

    def __init__(self, dropout: float = 0.3, manual: bool = False, momentum: float = 0.9) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = not manual
        self.momentum = momentum
        self.net = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3)
        )
        self.accuracy = MulticlassAccuracy(3, average="micro")

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        logits = self.net(x)
        loss = nn.functional.cross_entropy(logits, y)
        self.accuracy(logits, y)
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        self.log("train/acc", self.accuracy, on_step=False, on_epoch=True)
        self.log("train/step", float(self.global_step + self.current_epoch))
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        logits = self.net(x)
        self.accuracy(logits, y)
        self.log("val/loss", nn.functional.cross_entropy(logits, y))
        self.log("val/acc", self.accuracy)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=self.momentum)
        if not self.automatic_optimization:
            return optimizer
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2), "interval": "step"}]


class Joined(Travelling):
    """Takes batches of two loaders, and logs under names of its own."""

    def training_step(self, batch: dict[str, list[Tensor]], batch_idx: int) -> Tensor:
        return super().training_step(
            [torch.cat(parts) for parts in zip(*batch.values(), strict=True)], batch_idx
        )

    def log(self, name: str, value: Any, **settings: Any) -> None:
        super().log(f"own/{name}", value, **settings)


class StepsSchedulers(Travelling):
    """Optimizes by hand, and steps a scheduler of its own after each batch."""

    def __init__(self, kind: str = "MultiStepLR") -> None:
        super().__init__(manual=True)
        self.save_hyperparameters()
        self.kind = kind

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        scheduler = self.lr_schedulers()
        scheduler.step(*([loss.detach()] if self.kind == "ReduceLROnPlateau" else []))
        return loss

    def configure_optimizers(self) -> Any:
        optimizer, schedulers = super().configure_optimizers(), torch.optim.lr_scheduler
        made = {
            "MultiStepLR": lambda: schedulers.MultiStepLR(optimizer, [1, 3, 5], 0.5),
            "OneCycleLR": lambda: schedulers.OneCycleLR(optimizer, 0.2, total_steps=40),
            "ReduceLROnPlateau": lambda: schedulers.ReduceLROnPlateau(optimizer, patience=0),
            "LambdaLR": lambda: schedulers.LambdaLR(optimizer, lambda step: 0.9**step),
        }
        return [optimizer], [made[self.kind]()]


class OwnStep(Travelling):
    """Steps in its own way."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any) -> None:
        optimizer.step(closure=optimizer_closure)
        for group in optimizer.param_groups:
            group["lr"] *= 0.9


class Forgetful(Travelling):
    """Keeps no record of what it was constructed with."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hparams.clear()
