"""A module with two parameters and a quadratic loss, small enough to be worked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedlightning.data import Explicit
from fedlightning.strategy import FederatedStrategy


class Quadratic(L.LightningModule):
    """Minimise ``curvature / 2 * |w - target|^2``: each sample is a curvature and a target of two numbers."""

    def __init__(self, rate: float = 0.5) -> None:
        super().__init__()
        self.rate = rate
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        curvature, target = batch
        return (curvature / 2 * (self.w - target).square().sum(1)).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.rate)


def fit_quadratic(
    *, rounds: int = 2, module: Quadratic | None = None, samples_of_bob: int = 1, **settings: Any
) -> tuple[Quadratic, FederatedStrategy]:
    """Fit two workers for some rounds: curvature 1 and target (4, 0) at ann's, 2 and (0, 2) at bob's.

    Each has one sample, unless bob has the same several times, and takes two steps of rate 1/4 for each
    sample, along its exact gradient.
    """
    module = module if module is not None else Quadratic(rate=0.25)
    data = TensorDataset(
        torch.tensor([1.0] + [2.0] * samples_of_bob, dtype=torch.float64),
        torch.tensor([[4.0, 0.0]] + [[0.0, 2.0]] * samples_of_bob, dtype=torch.float64),
    )
    parts = Explicit({"ann": [0], "bob": list(range(1, 1 + samples_of_bob))})
    given: dict[str, Any] = {"local_epochs": 2, "partition": parts, "seed": 0}
    strategy = FederatedStrategy(**(given | settings))
    trainer = L.Trainer(
        strategy=strategy,
        accelerator="cpu",
        max_epochs=rounds,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(data, batch_size=1))
    return module, strategy


def assert_at(module: Quadratic, expected: Sequence[float]) -> None:
    """Assert where the two parameters are."""
    torch.testing.assert_close(module.w.detach(), torch.tensor(expected, dtype=torch.float64))
