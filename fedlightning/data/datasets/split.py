"""What a data set with a held-out part looks like, and how one is held out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import TensorDataset

from fedlightning.data.partition.counts import counts_from_shares


class TrainVal(NamedTuple):
    """Hold the two parts of a data set.

    Args:
        train: To be divided over workers.
        val: To judge the global model on.
    """

    train: TensorDataset
    val: TensorDataset


def stratified(labels: npt.NDArray[np.int64], count: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Choose ``count`` samples, each class in proportion to its size.

    Args:
        labels: One class per sample, shape ``(N,)``.
        count: How many are chosen.
        rng: Source of randomness.

    Returns:
        True where a sample is chosen, shape ``(N,)``.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for label, number in zip(classes, counts_from_shares(sizes.astype(np.float64), count), strict=True):
        chosen[rng.permutation(np.flatnonzero(labels == label))[:number]] = True
    return chosen
