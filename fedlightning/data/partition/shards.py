"""Label skew of the first FedAvg experiments: data sorted by label, cut into shards, a few to each worker."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from typing_extensions import override

from fedlightning.data.checks import check_count
from fedlightning.data.labels import Column, Values, find_labels
from fedlightning.data.map_style import MapStyle
from fedlightning.data.partition.base import Indices, Partitioner


def deal_shards(labels: Values, num_workers: int, per_worker: int, rng: np.random.Generator) -> list[Indices]:
    """Sort by label, cut into ``num_workers * per_worker`` shards of equal size, deal them at random.

    Args:
        labels: One class per sample, shape ``(N,)``, at least as many as shards.
        num_workers: Number of workers.
        per_worker: Shards for each.
        rng: Source of randomness.

    Returns:
        One array of sample numbers per worker.
    """
    shards = np.array_split(np.argsort(labels, kind="stable"), num_workers * per_worker)
    dealt = rng.permutation(len(shards)).reshape(num_workers, per_worker)
    return [np.concatenate([shards[shard] for shard in own]) for own in dealt]


@dataclass(frozen=True)
class Shards(Partitioner):
    """Give each worker a fixed number of shards of the data sorted by label.

    Source: McMahan et al. 2017, section 3, "pathological non-IID". A shard that crosses the border between
    two classes holds both; for exactly k classes use `ClassesPerWorker`.

    Args:
        per_worker: Shards for each worker, at least 1.
        labels: Where the labels are, if the dataset does not show them (see `find_labels`).
        seed: Seed of this partition alone; None takes the strategy's.

    Raises:
        ValueError: If ``per_worker`` is below 1, or there are fewer samples than shards.

    Example:
        >>> labels = np.arange(600) % 10
        >>> first, *_ = Shards(2, labels=labels).split(labels, num_workers=10).indices
        >>> len(first), len(set(labels[first])) <= 2
        (60, True)
    """

    per_worker: int = 2
    labels: Column | None = field(default=None, kw_only=True, repr=False, compare=False)

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("per_worker", self.per_worker)

    @override
    def partition(self, dataset: MapStyle, num_workers: int, rng: np.random.Generator) -> list[Indices]:
        labels = find_labels(dataset, self.labels)
        if num_workers * self.per_worker > len(labels):
            raise ValueError(
                f"per_worker={self.per_worker} for {num_workers} workers makes "
                f"{num_workers * self.per_worker} "
                f"shards of {len(labels)} samples. Use fewer shards or fewer workers."
            )
        return deal_shards(labels, num_workers, self.per_worker, rng)


@dataclass(frozen=True)
class TwoShards(Shards):
    """Give each worker two shards of the data sorted by label, as McMahan et al. 2017 did with MNIST.

    Example:
        >>> labels = np.arange(600) % 10
        >>> first, *_ = TwoShards(labels=labels).split(labels, num_workers=10).indices
        >>> len(first), len(set(labels[first])) <= 2
        (60, True)
    """

    per_worker: int = field(default=2, init=False)
