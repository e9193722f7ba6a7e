"""The networks that the benchmarks train, with a batch each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override


class Task(NamedTuple):
    """Hold a network and one batch to train it on.

    Args:
        network: Maps inputs to logits.
        inputs: Shape ``(N, ...)``.
        labels: Shape ``(N,)``, int64.
    """

    network: nn.Module
    inputs: Tensor
    labels: Tensor


def cnn(batch: int = 32) -> Task:
    """Make a CNN of 106k parameters for images of 28x28 pixels."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    return Task(network, torch.rand(batch, 1, 28, 28), torch.randint(10, (batch,)))


def mlp(batch: int = 16) -> Task:
    """Make a small MLP, where next to all time is overhead."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    return Task(network, torch.rand(batch, 8), torch.randint(4, (batch,)))


class Transformer(nn.Module):
    """Classify sequences of tokens by two encoder layers with four heads each."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, nhead=4, dim_feedforward=64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2)
        self.head = nn.Linear(32, 5)

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits ``(N, 5)`` for tokens ``(N, T)``."""
        logits: Tensor = self.head(self.encoder(self.embedding(tokens)).mean(1))
        return logits


def transformer(batch: int = 8) -> Task:
    """Make a transformer of two layers."""
    torch.manual_seed(0)
    return Task(Transformer(), torch.randint(50, (batch, 12)), torch.randint(5, (batch,)))
