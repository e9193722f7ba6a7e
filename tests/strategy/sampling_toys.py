"""Workers with five samples each, modules and strategies for the tests of sampling."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from fedlightning.algorithms import OnlineWorkers, Sampling
from fedlightning.data import Explicit
from fedlightning.strategy import FederatedStrategy
from fedlightning.strategy.history import History
from tests.strategy import toys
from tests.strategy.toys import Classifier, loader

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1)
NAMES = [f"worker-{number}" for number in range(6)]
PARTS = Explicit({name: list(range(5 * number, 5 * number + 5)) for number, name in enumerate(NAMES)})
EVERY_OTHER = OnlineWorkers([NAMES[:3], []])


class Teacher(Classifier):
    """Writes to itself in every step, whatever its mode: a count, and a frozen copy."""

    def __init__(self) -> None:
        super().__init__(SGD)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.teacher = nn.Linear(4, 3).requires_grad_(False)

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.steps += 1
        self.teacher.weight.mul_(0.9)
        return super().training_step(batch, batch_idx) + torch.rand(()) * self.net[0].weight.sum()


class Plain(Classifier):
    """The same loss in training and evaluation."""

    def __init__(self) -> None:
        super().__init__(SGD)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


class PlainSGD(Plain):
    """Without momentum, which not every algorithm allows."""

    def __init__(self) -> None:
        super().__init__()
        self.make_optimizer = partial(torch.optim.SGD, lr=0.1)


def fit(strategy: FederatedStrategy, **settings: Any) -> tuple[Any, Any]:
    """Fit in batches of three of a worker's five samples: batch norm cannot train on one."""
    return toys.fit(strategy, **{"train": loader(batch_size=3), **settings})


def strategy(sampling: Sampling | None, cohort_size: int | None = 2, **settings: Any) -> FederatedStrategy:
    return FederatedStrategy(
        **{"partition": PARTS, "seed": 5, "cohort_size": cohort_size, "sampling": sampling, **settings}
    )


def cohorts_of(history: History) -> list[tuple[str, ...]]:
    return [record.workers for record in history]
