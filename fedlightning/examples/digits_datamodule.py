"""Scikit-learn's 1,797 real handwritten digits as a plain Lightning DataModule; no download."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override


class DigitsDataModule(L.LightningDataModule):
    """Serve digits in three parts, each with the same share of every label.

    A batch is ``(images, labels)``: float32 ``(N, 1, 8, 8)`` in [0, 1] and int64 ``(N,)``.

    Args:
        batch_size: samples per batch.
        val_samples: number of samples for validation.
        test_samples: number of samples for testing; the rest is for training.
        seed: seed of the split, fixed so that every run is judged on the same samples.

    Example:
        >>> digits = DigitsDataModule(batch_size=32)
        >>> digits.setup("fit")
        >>> [tuple(part.shape) for part in next(iter(digits.train_dataloader()))]
        [(32, 1, 8, 8), (32,)]
    """

    def __init__(
        self, batch_size: int = 32, val_samples: int = 297, test_samples: int = 300, seed: int = 0
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.val_samples = val_samples
        self.test_samples = test_samples
        self.seed = seed

    @override
    def setup(self, stage: str) -> None:
        pixels, labels = load_digits(return_X_y=True)
        rest, test = _split(list(range(len(labels))), labels, self.test_samples, self.seed)
        train, val = _split(rest, labels, self.val_samples, self.seed)
        # The pixels count up to 16 dark points each.
        images = torch.as_tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
        targets = torch.as_tensor(labels, dtype=torch.int64)
        self.train_set = TensorDataset(images[train], targets[train])
        self.val_set = TensorDataset(images[val], targets[val])
        self.test_set = TensorDataset(images[test], targets[test])

    @override
    def train_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        return DataLoader(self.train_set, batch_size=self.batch_size, shuffle=True)

    @override
    def val_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        return DataLoader(self.val_set, batch_size=self.val_samples)

    @override
    def test_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        return DataLoader(self.test_set, batch_size=self.test_samples)


def _split(indices: list[int], labels: NDArray[Any], held_out: int, seed: int) -> tuple[list[int], list[int]]:
    rest, held = train_test_split(indices, test_size=held_out, random_state=seed, stratify=labels[indices])
    return rest, held
