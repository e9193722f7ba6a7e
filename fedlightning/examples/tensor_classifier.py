"""A classifier of vectors, images or the characters of a text, for plain Lightning; no federation."""

from __future__ import annotations

from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy
from typing_extensions import override

Batch = tuple[Tensor, Tensor]

NO_TARGET = -100
"""The target that does not count, as torch's cross entropy has it: what pads a text."""


class TensorClassifier(L.LightningModule):
    """Classify what a data set of tensors holds.

    Args:
        network: ``"linear"`` for vectors of ``inputs`` numbers; ``"cnn"`` for grey images of ``inputs`` by
            ``inputs`` pixels; ``"lstm"`` for texts of numbers below ``inputs``, with a class per character.
        inputs: How large an input is, see above.
        classes: Number of classes.
        width: Channels of the first convolution, or units of the LSTM; a linear network has none.
        lr: Learning rate of SGD.
        momentum: Momentum of SGD.

    Raises:
        ValueError: If ``network`` is none of the three.

    Example:
        >>> TensorClassifier("linear", inputs=60, classes=10)(torch.zeros(5, 60)).shape
        torch.Size([5, 10])
        >>> TensorClassifier("lstm", inputs=77, classes=77)(torch.zeros(5, 80, dtype=torch.int64)).shape
        torch.Size([5, 77, 80])
    """

    def __init__(
        self,
        network: Literal["linear", "cnn", "lstm"],
        inputs: int,
        classes: int,
        width: int = 16,
        lr: float = 0.1,
        momentum: float = 0.0,
    ) -> None:
        super().__init__()
        if network not in _NETWORKS:
            raise ValueError(f"network must be one of {', '.join(_NETWORKS)}; got {network!r}.")
        self.save_hyperparameters()
        self.network = _NETWORKS[network](inputs, classes, width)
        self.loss = nn.CrossEntropyLoss(ignore_index=NO_TARGET)
        self.train_acc, self.val_acc, self.test_acc = (
            MulticlassAccuracy(num_classes=classes, average="micro", ignore_index=NO_TARGET) for _ in range(3)
        )

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, shape ``(N, classes)``, or ``(N, classes, length)`` of texts."""
        logits: Tensor = self.network(inputs)
        return logits

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        inputs, targets = batch
        logits = self(inputs)
        loss: Tensor = self.loss(logits, targets)
        self.train_acc(logits, targets)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True)
        return loss

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        inputs, targets = batch
        logits = self(inputs)
        self.val_acc(logits, targets)
        self.log("val/loss", self.loss(logits, targets))
        self.log("val/acc", self.val_acc, prog_bar=True)

    @override
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        inputs, targets = batch
        self.test_acc(self(inputs), targets)
        self.log("test/acc", self.test_acc)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        hparams: Any = self.hparams
        return torch.optim.SGD(self.parameters(), lr=hparams.lr, momentum=hparams.momentum)


class _NextCharacter(nn.Module):
    """An embedding and an LSTM (McMahan et al. 2017 have two of 256 units)."""

    def __init__(self, characters: int, classes: int, units: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, 8, padding_idx=0)
        self.lstm = nn.LSTM(8, units, batch_first=True)
        self.head = nn.Linear(units, classes)

    @override
    def forward(self, text: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(text))
        logits: Tensor = self.head(states)
        return logits.transpose(1, 2)


def _linear(inputs: int, classes: int, width: int) -> nn.Module:
    del width
    return nn.Linear(inputs, classes)


def _cnn(side: int, classes: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * (side // 4) ** 2, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )


_NETWORKS = {"linear": _linear, "cnn": _cnn, "lstm": _NextCharacter}
