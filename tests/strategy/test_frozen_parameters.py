"""Parameters without a gradient that ``training_step`` writes to, as teachers and moving averages are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedlightning.data import Explicit
from fedlightning.strategy import FederatedStrategy, RoundFailed
from fedlightning.workers import VirtualWorker
from tests.strategy.toys import Classifier, assert_same_module, fit, loader

GRADIENTS: dict[str, Any] = {"local_steps": 1}


class Taught(Classifier):
    """Count batches, and follow the students' inputs, in frozen parameters."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__(schedule=False)
        self.batches = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.teacher = nn.Parameter(torch.zeros(4), requires_grad=False)
        self.fails_at = fails_at
        self.seen = 0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        with torch.no_grad():
            self.batches.add_(1)
            self.teacher.mul_(0.5).add_(batch[0].mean(0))
        if self.seen == self.fails_at:
            raise ArithmeticError("no more")
        self.seen += 1
        return super().training_step(batch, batch_idx)


def test_alone_they_are_those_of_an_ordinary_fit() -> None:
    plain, _ = fit(module=Taught)
    federated, _ = fit(FederatedStrategy(1, **GRADIENTS), module=Taught)
    assert_same_module(plain, federated)


@pytest.mark.parametrize("aggregator", [None, VirtualWorker(id="trusted")], ids=["controller", "trusted"])
def test_each_worker_starts_from_the_global_ones_and_they_are_averaged(aggregator: Any) -> None:
    strategy = FederatedStrategy(
        3,
        partition=Explicit([range(4), range(4, 8), range(8, 12)]),
        aggregator=aggregator,
        rounds_per_epoch=2,
        **GRADIENTS,
    )
    train = loader(12, shuffle=False)
    module, _ = fit(strategy, module=Taught, train=train, max_epochs=1)
    assert isinstance(module, Taught)
    assert module.batches == 2
    mean = train.dataset[:][0].mean(0)  # type: ignore[index]  # a TensorDataset takes slices
    torch.testing.assert_close(module.teacher.detach(), 0.5 * mean + mean)


def test_a_failed_round_leaves_no_trace_in_them() -> None:
    module = Taught(fails_at=4)  # at the second worker of the second round
    with pytest.raises(RoundFailed, match="round 1"):
        fit(FederatedStrategy(3, **GRADIENTS), module=module)
    assert module.batches == 1
