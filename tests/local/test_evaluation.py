"""A module is evaluated on a worker's data and comes out as it went in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fedlightning.strategy import FederatedStrategy
from tests.strategy.toys import Classifier, fit, samples, trainer


class TakesBatch(Classifier):
    def validation_step(self, batch: list[Tensor]) -> None:
        super().validation_step(batch, 0)


class TakesLoader(Classifier):
    def validation_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int) -> None:
        assert dataloader_idx == 0
        super().validation_step(batch, batch_idx)


@pytest.mark.parametrize("kind", [Classifier, TakesBatch, TakesLoader])
def test_a_step_gets_what_it_takes(kind: type[Classifier]) -> None:
    strategy = FederatedStrategy(2)
    trainer(strategy, max_epochs=1).fit(kind(), DataLoader(samples(), batch_size=4))
    assert all(set(summary.metrics) == {"val/loss", "val/acc"} for summary in strategy.federation_summary())


def test_each_part_keeps_its_mode() -> None:
    strategy = FederatedStrategy(2)
    module, _ = fit(strategy)
    module.train()
    module.net[1].eval()
    strategy.federation_summary()
    assert module.training
    assert not module.net[1].training


class Noisy(Dataset[Any]):
    """Augments at random."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        x, y = samples()[position]
        return x + torch.rand(4), y


def test_global_streams_are_untouched() -> None:
    strategy = FederatedStrategy(2)
    fit(strategy, train=DataLoader(Noisy(), batch_size=4))
    before = torch.get_rng_state()
    first, second = strategy.federation_summary(), strategy.federation_summary()
    assert torch.equal(torch.get_rng_state(), before)
    assert [summary.metrics for summary in first] == [summary.metrics for summary in second]
