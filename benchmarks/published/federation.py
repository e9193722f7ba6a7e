"""One fit through the public API, as a user would write it, and how the global module did along the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from fedlightning.algorithms.attacks import BackdoorPatch
from fedlightning.strategy import FederatedStrategy

ACCURACY = "accuracy"
LOSS = "loss"
FOOLED = "fooled"


@dataclass(frozen=True)
class Curve:
    """Hold how the global module did after some rounds.

    Args:
        rounds: How many had been trained.
        metrics: Their values after each of these.
    """

    rounds: list[int]
    metrics: dict[str, list[float]]

    def last(self, metric: str = ACCURACY) -> float:
        """Return where a metric ended."""
        return self.metrics[metric][-1]


class Classifier(pl.LightningModule):
    """Classify, and train with plain SGD.

    Args:
        net: Maps inputs, flattened to shape ``(N, features)``, to logits.
        lr: Learning rate of local steps.
        backdoor: A patch of which validation is to say how often it works.
    """

    def __init__(self, net: nn.Module, lr: float, backdoor: BackdoorPatch | None = None) -> None:
        super().__init__()
        self.net = net
        self.lr = lr
        self.backdoor = backdoor

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.net(inputs.flatten(1))
        return logits

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        inputs, labels = batch
        return F.cross_entropy(self(inputs), labels)

    @override
    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        inputs, labels = batch
        logits = self(inputs)
        self.log(LOSS, F.cross_entropy(logits, labels), batch_size=len(labels))
        self.log(ACCURACY, (logits.argmax(1) == labels).float().mean(), batch_size=len(labels))
        if self.backdoor is not None:
            others = inputs[labels != self.backdoor.target]
            fooled = self(self.backdoor.stamp(others)).argmax(1) == self.backdoor.target
            self.log(FOOLED, fooled.float().mean(), batch_size=len(labels))

    @override
    def configure_optimizers(self) -> SGD:
        return SGD(self.parameters(), lr=self.lr)


@dataclass(frozen=True)
class Task:
    """Hold what is trained on, and what is tested on.

    Args:
        train: Inputs and labels, to be divided over workers.
        test: Likewise; in one batch.
    """

    train: TensorDataset
    test: TensorDataset


def fit(
    task: Task,
    module: Classifier,
    *,
    rounds: int,
    batch_size: int | None,
    seed: int,
    every: int = 1,
    until: float | None = None,
    vectorize: bool = True,
    **federated: Any,
) -> Curve:
    """Train for some rounds, in place.

    Args:
        task: The data.
        module: What is trained.
        rounds: The most rounds.
        batch_size: Samples of a local step; ``None`` for all that a worker has.
        seed: Of everything that the strategy draws.
        every: After how many rounds the global module is tested.
        until: An accuracy at which training may end.
        vectorize: Whether steps are taken for several workers at once, where that works.
        **federated: Arguments of `FederatedStrategy`.
    """
    strategy = FederatedStrategy(rounds_per_epoch=every, seed=seed, vectorize=vectorize, **federated)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=rounds // every,
        strategy=strategy,
        callbacks=_ends(until),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    loader = DataLoader(task.train, batch_size or len(task.train), shuffle=True)
    # One batch as it is: batched by the loader, it would be taken apart into samples and stacked again.
    test = TensorDataset(*(part[None] for part in task.test.tensors))
    trainer.fit(module, loader, DataLoader(test, batch_size=None))
    tests = strategy.history.evaluations
    metrics = {name: [row.metrics[name] for row in tests] for name in tests[0].metrics}
    return Curve([row.rounds for row in tests], metrics)


def _ends(until: float | None) -> list[Callback]:
    """Return what ends a fit: numbers that are not finite, or an accuracy that is reached."""
    never = 10**9
    return [
        EarlyStopping(LOSS, patience=never, check_finite=True),
        *(
            []
            if until is None
            else [EarlyStopping(ACCURACY, patience=never, mode="max", stopping_threshold=until)]
        ),
    ]


def linear(features: int, classes: int) -> nn.Module:
    """Build a classifier whose training is convex, begun at zero."""
    net = nn.Linear(features, classes)
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)
    return net


def network(features: int, hidden: int, classes: int, seed: int) -> nn.Module:
    """Build a network of one hidden layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))
