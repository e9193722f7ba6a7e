"""Skew of inputs in a fit: nothing changed is nothing noticed, and another skew is another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Dataset

from fedlightning.data import IID, Dirichlet, FeatureNoise
from fedlightning.strategy import FederatedStrategy, NotFederatable
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, samples, trainer


class OneByOne(Dataset[Any]):
    """The same samples, read one at a time."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> Any:
        x, y = samples()[index]
        return x, y

    @property
    def targets(self) -> list[int]:
        return samples().tensors[1].tolist()


def trained(partition: Any, train: Any = None) -> Classifier:
    module, _ = fit(FederatedStrategy(3, partition, seed=0), train=train or loader(drop_last=True))
    assert isinstance(module, Classifier)
    return module


@pytest.mark.parametrize("among", [IID(), Dirichlet(5.0, min_samples=6)], ids=repr)
def test_without_noise_the_bits_are_those_of_the_division_alone(among: Any) -> None:
    assert_same_module(trained(FeatureNoise(0.0, among=among)), trained(among))


def test_samples_from_memory_and_one_by_one_are_changed_alike() -> None:
    in_memory = trained(FeatureNoise(0.5))
    assert_same_module(
        in_memory, trained(FeatureNoise(0.5), DataLoader(OneByOne(), 4, shuffle=True, drop_last=True))
    )
    plain = trained(IID())
    assert not torch.equal(in_memory.net[0].weight, plain.net[0].weight)


def test_another_skew_is_another_run(tmp_path: Path) -> None:
    fit(
        FederatedStrategy(3, FeatureNoise(0.5)),
        enable_checkpointing=True,
        callbacks=[ModelCheckpoint(tmp_path, save_last=True)],
        max_epochs=1,
    )
    with pytest.raises(NotFederatable, match="its partition is"):
        trainer(FederatedStrategy(3, FeatureNoise(0.4))).fit(
            Classifier(), loader(), ckpt_path=str(tmp_path / "last.ckpt")
        )
