"""Samples dealt at random, the same number to everybody."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from fedlightning.data.map_style import MapStyle
from fedlightning.data.partition.base import Indices, Partitioner, cut


def deal_evenly(num_samples: int, num_workers: int, rng: np.random.Generator) -> list[Indices]:
    """Deal sample numbers at random; sizes differ by at most 1."""
    least, one_more = divmod(num_samples, num_workers)
    counts = least + (np.arange(num_workers) < one_more)
    return cut(rng.permutation(num_samples), counts)


@dataclass(frozen=True)
class IID(Partitioner):
    """Give each worker a uniformly random part of the same size (to within one sample).

    Source: McMahan et al. 2017, section 3, "IID: the data is shuffled, and then partitioned".

    Args:
        seed: Seed of this partition alone; None takes the strategy's.

    Example:
        >>> IID().split(list(range(7)), num_workers=3).sizes
        (3, 2, 2)
    """

    @override
    def partition(self, dataset: MapStyle, num_workers: int, rng: np.random.Generator) -> list[Indices]:
        return deal_evenly(len(dataset), num_workers, rng)
