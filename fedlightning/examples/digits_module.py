"""A small classifier of 8x8 digits, written for plain Lightning; it knows nothing of federated learning."""

from __future__ import annotations

from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy
from typing_extensions import override

Batch = tuple[Tensor, Tensor]


class DigitsClassifier(L.LightningModule):
    """Classify handwritten digits.

    Args:
        network: ``"mlp"`` (one hidden layer) or ``"cnn"`` (two convolutions).
        width: units of the hidden layer, or channels of the first convolution.
        lr: learning rate of SGD.
        momentum: momentum of SGD.

    Raises:
        ValueError: if ``network`` is neither of the two.

    Example:
        >>> DigitsClassifier("cnn", width=4)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        network: Literal["mlp", "cnn"] = "mlp",
        width: int = 64,
        lr: float = 0.3,
        momentum: float = 0.0,
    ) -> None:
        super().__init__()
        if network not in _NETWORKS:
            raise ValueError(f"network must be one of {', '.join(_NETWORKS)}; got {network!r}.")
        self.save_hyperparameters()
        self.network = _NETWORKS[network](width)
        self.loss = nn.CrossEntropyLoss()
        self.train_acc = MulticlassAccuracy(num_classes=10, average="micro")
        self.val_acc = MulticlassAccuracy(num_classes=10, average="micro")
        self.test_acc = MulticlassAccuracy(num_classes=10, average="micro")

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(N, 10)`` of images ``(N, 1, 8, 8)`` with values in [0, 1]."""
        logits: Tensor = self.network(images)
        return logits

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch
        logits = self(images)
        loss: Tensor = self.loss(logits, labels)
        self.train_acc(logits, labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True)
        return loss

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, labels = batch
        logits = self(images)
        self.val_acc(logits, labels)
        self.log("val/loss", self.loss(logits, labels))
        self.log("val/acc", self.val_acc, prog_bar=True)

    @override
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        images, labels = batch
        self.test_acc(self(images), labels)
        self.log("test/acc", self.test_acc)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        hparams: Any = self.hparams
        return torch.optim.SGD(self.parameters(), lr=hparams.lr, momentum=hparams.momentum)


def _mlp(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def _cnn(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * 4 * 4, 10),
    )


_NETWORKS = {"mlp": _mlp, "cnn": _cnn}
