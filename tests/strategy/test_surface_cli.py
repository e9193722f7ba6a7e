"""LightningCLI reads the strategy's signature: every argument from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.utils.data import DataLoader

from fedlightning.data import Dirichlet
from fedlightning.strategy import FederatedStrategy
from tests.strategy.toys import Classifier, loader


class Data(LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return loader(60)

    def val_dataloader(self) -> DataLoader[Any]:
        return loader(12, shuffle=False)


class Module(Classifier):
    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__(dropout=dropout)
        self.net[1] = nn.Identity()  # batch norm cannot train on a last batch of one


def test_the_command_line_configures_the_federation(tmp_path: Path) -> None:
    arguments = [
        "fit",
        "--trainer.strategy=FederatedStrategy",
        "--trainer.strategy.workers=4",
        "--trainer.strategy.update=sequential",
        "--trainer.strategy.local_steps=2",
        "--trainer.strategy.partition=Dirichlet",
        "--trainer.strategy.partition.alpha=0.3",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=1",
        "--trainer.logger=false",
        "--trainer.enable_checkpointing=false",
        "--trainer.enable_progress_bar=false",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    cli = LightningCLI(Module, Data, args=arguments, save_config_callback=None)
    strategy = cli.trainer.strategy
    assert isinstance(strategy, FederatedStrategy)
    assert strategy.settings.update == "sequential"
    assert isinstance(strategy.settings.partition, Dirichlet)
    assert len(strategy.federation.members) == 4
    assert len(strategy.history) == cli.trainer.global_step > 0
