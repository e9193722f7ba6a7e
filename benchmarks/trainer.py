"""Measure what the strategy adds to an ordinary `fit`, step for step: ``python -m benchmarks.trainer``.

The same module takes the same number of optimizer steps on batches of the same size, by Lightning's Trainer
alone and by `FederatedStrategy` with one local step per round. What a round of many local steps costs beside
a loop by hand is measured in `simulation`.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from benchmarks.measuring import FULL, QUICK, Effort, ratio
from benchmarks.table import Row, render
from fedlightning import FederatedStrategy

STEPS = 200
QUICK_STEPS = 10
BATCH = 32


class Classifier(L.LightningModule):
    """A network with a logged loss and a torchmetric, as users have them.

    Args:
        hidden: Units of each of its two hidden layers.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 10)
        )
        self.accuracy = MulticlassAccuracy(10)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Train on a batch and log loss and accuracy."""
        x, y = batch
        logits = self.net(x)
        loss = nn.functional.cross_entropy(logits, y)
        self.accuracy(logits, y)
        self.log("train/loss", loss)
        self.log("train/acc", self.accuracy)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Train with Adam."""
        return torch.optim.Adam(self.parameters())


WAYS: dict[str, dict[str, Any]] = {
    "one worker, sequential": {"workers": 1, "update": "sequential"},
    "one worker, averaged": {"workers": 1, "update": "averaged"},
    "ten workers, sequential": {"workers": 10, "update": "sequential"},
}


def measured(hidden: int, steps: int, effort: Effort) -> Iterator[Row]:
    """Measure one size of network.

    Args:
        hidden: Units of a hidden layer.
        steps: Optimizer steps of one `fit`.
        effort: How often to measure.

    Yields:
        For each way of federating, what a `fit` takes as a multiple of an ordinary one.
    """
    data = TensorDataset(torch.randn(steps * BATCH, 64), torch.randint(0, 10, (steps * BATCH,)))

    def fit(strategy: Any) -> None:
        trainer = L.Trainer(
            strategy=strategy,
            accelerator="cpu",
            devices=1,
            max_steps=steps,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Classifier(hidden), DataLoader(data, batch_size=BATCH))

    for name, settings in WAYS.items():

        def federated(settings: dict[str, Any] = settings) -> None:
            fit(FederatedStrategy(local_steps=1, seed=0, **settings))

        yield Row(f"{name}, hidden {hidden}", ratio(federated, lambda: fit("auto"), effort), "x")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    steps, effort = (QUICK_STEPS, QUICK) if quick else (STEPS, FULL)
    print(render(row for hidden in (32, 1024) for row in measured(hidden, steps, effort)), flush=True)


if __name__ == "__main__":
    main()
