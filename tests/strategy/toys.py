"""Small ordinary Lightning things for the tests of the strategy: nothing in them knows of federation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


class Classifier(L.LightningModule):
    """A module with all that makes equality hard: batch norm, dropout, metrics, logging by step and epoch."""

    def __init__(
        self, optimizer: MakeOptimizer | None = None, dropout: float = 0.3, schedule: bool = True
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.make_optimizer = optimizer or (lambda parameters: torch.optim.Adam(parameters, lr=0.01))
        self.net = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3)
        )
        self.train_accuracy = MulticlassAccuracy(3, average="micro")
        self.val_accuracy = MulticlassAccuracy(3, average="micro")

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        logits = self.net(x)
        loss = nn.functional.cross_entropy(logits, y)
        self.train_accuracy(logits, y)
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        self.log("train/acc", self.train_accuracy, on_step=True, on_epoch=True)
        self.log("train/idx", float(batch_idx))
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        logits = self.net(x)
        self.val_accuracy(logits, y)
        self.log("val/loss", nn.functional.cross_entropy(logits, y))
        self.log("val/acc", self.val_accuracy)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.parameters())
        if not self.schedule:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.9),
                "interval": "step",
            },
        }


class Memo(Logger):
    """Keep everything that is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[int, dict[str, float]]] = []

    @property
    def name(self) -> str:
        return "memo"

    @property
    def version(self) -> int:
        return 0

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.entries.append((step or 0, dict(metrics)))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


def samples(count: int = 30, seed: int = 0) -> TensorDataset:
    """Return ``count`` samples of four features and three classes that can be learned."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    x = torch.randn(count, 4, generator=generator) + nn.functional.one_hot(y, 4)
    return TensorDataset(x, y)


def loader(count: int = 30, batch_size: int = 4, shuffle: bool = True, **settings: Any) -> DataLoader[Any]:
    """Return an ordinary loader of ``samples(count)``."""
    return DataLoader(samples(count), batch_size=batch_size, shuffle=shuffle, **settings)


def trainer(strategy: Any = "auto", **settings: Any) -> L.Trainer:
    """Return a quiet Trainer on the CPU."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
    }
    return L.Trainer(strategy=strategy, **(defaults | settings))


def fit(
    strategy: Any = "auto",
    *,
    module: L.LightningModule | Callable[[], L.LightningModule] | None = None,
    train: Any = None,
    seed: int = 3,
    **settings: Any,
) -> tuple[L.LightningModule, L.Trainer]:
    """Fit a module (or what makes one, after seeding) and return it with its Trainer."""
    L.seed_everything(seed, verbose=False)
    if module is None:
        module = Classifier()
    if not isinstance(module, L.LightningModule):
        module = module()
    run = trainer(strategy, **settings)
    run.fit(module, loader() if train is None else train, loader(12, shuffle=False))
    return module, run


def assert_same_module(left: nn.Module, right: nn.Module) -> None:
    """Assert that two modules hold the same bits."""
    first, second = left.state_dict(), right.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), f"{name} differs by {(tensor - second[name]).abs().max()}"


def assert_same_optimizer(left: Optimizer, right: Optimizer) -> None:
    """Assert that two optimizers hold the same bits."""
    first, second = left.state_dict(), right.state_dict()
    assert first["param_groups"] == second["param_groups"]
    assert first["state"].keys() == second["state"].keys()
    for index, state in first["state"].items():
        for name, value in state.items():
            other = second["state"][index][name]
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other)), f"{index}.{name} differs"
