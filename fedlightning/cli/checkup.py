"""The round that `doctor` trains: so small that its result can be computed by hand, without rounding."""

from __future__ import annotations

import logging
import warnings

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from fedlightning.data import Explicit
from fedlightning.strategy import FederatedStrategy
from fedlightning.workers import VirtualWorker

# The weight starts at 1, the loss of a batch is sum((w x - y)^2), its gradient sum(2 x (w x - y)), lr 1/8:
#   bob has three times (x=1, y=0):  w = 1 - 6/8 = 0.25
#   alice has once (x=2, y=4):       w = 1 + 8/8 = 2
#   the mean, weighted by samples:   (3 * 0.25 + 1 * 2) / 4
EXPECTED = 0.6875


class _Weight(L.LightningModule):
    """One weight, by which a number is multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return (self.weight * x - y).square().sum()

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1 / 8)


def train_one_round() -> float:
    """Train one averaged round at bob and alice, on the CPU, without any output.

    Returns:
        The weight after the round.
    """
    data = TensorDataset(torch.tensor([1.0, 1.0, 1.0, 2.0]), torch.tensor([0.0, 0.0, 0.0, 4.0]))
    workers = [VirtualWorker(id="bob"), VirtualWorker(id="alice")]
    strategy = FederatedStrategy(workers, Explicit({"bob": [0, 1, 2], "alice": [3]}), seed=0)
    module = _Weight()
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _trainer(strategy).fit(module, DataLoader(data, batch_size=4))
    finally:
        logger.setLevel(level)
    return module.weight.item()


def _trainer(strategy: FederatedStrategy) -> L.Trainer:
    return L.Trainer(
        strategy=strategy,
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
