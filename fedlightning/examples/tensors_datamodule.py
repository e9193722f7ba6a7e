"""A plain Lightning DataModule over data sets of tensors in two parts; whence they come is given to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split
from typing_extensions import override


class TensorsDataModule(L.LightningDataModule):
    """Serve a training set, and the two halves of a held-out set for validation and testing.

    Args:
        load: Returns the training set and the held-out set; called once, at the first ``setup``.
        batch_size: Samples per batch of training.
        eval_batch_size: Samples per batch of validation and testing.
        seed: Seed of the halves, fixed so that every run is judged on the same samples.

    Example:
        >>> numbers = TensorDataset(torch.arange(10))
        >>> data = TensorsDataModule(lambda: (numbers, numbers), batch_size=4)
        >>> data.setup("fit")
        >>> len(data.train_dataloader()), len(data.val_set), len(data.test_set)
        (3, 5, 5)
    """

    def __init__(
        self,
        load: Callable[[], tuple[TensorDataset, TensorDataset]],
        batch_size: int = 32,
        eval_batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.load = load
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.train_set: TensorDataset | None = None

    @override
    def setup(self, stage: str) -> None:
        if self.train_set is None:
            self.train_set, held_out = self.load()
            generator = torch.Generator().manual_seed(self.seed)
            self.val_set, self.test_set = random_split(held_out, [0.5, 0.5], generator)

    @override
    def train_dataloader(self) -> DataLoader[Any]:
        assert self.train_set is not None, "Lightning calls setup first"
        return DataLoader(self.train_set, batch_size=self.batch_size, shuffle=True)

    @override
    def val_dataloader(self) -> DataLoader[Any]:
        return self._judging(self.val_set)

    @override
    def test_dataloader(self) -> DataLoader[Any]:
        return self._judging(self.test_set)

    def _judging(self, part: Dataset[Any]) -> DataLoader[Any]:
        return DataLoader(part, batch_size=self.eval_batch_size)
