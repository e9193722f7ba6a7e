"""Label skew by number: every worker holds exactly k classes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from fedlightning.data.checks import check_count
from fedlightning.data.labels import Column, Values, find_labels
from fedlightning.data.map_style import MapStyle
from fedlightning.data.partition.base import Indices, Partitioner


def choose_classes(
    num_classes: int, num_workers: int, k: int, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Choose k different classes for each worker; numbers of holders of a class differ by at most 1.

    Each worker in turn takes the k classes that the fewest hold, ties broken at random.

    Args:
        num_classes: Number of classes, at least k.
        num_workers: Number of workers.
        k: Classes of each worker.
        rng: Source of randomness.

    Returns:
        Who holds what, shape ``(num_workers, num_classes)``.
    """
    held = np.zeros((num_workers, num_classes), dtype=np.bool_)
    for worker in range(num_workers):
        holders = held.sum(axis=0)
        chosen = np.lexsort((rng.random(num_classes), holders))[:k]
        held[worker, chosen] = True
    return held


def divide_among_holders(
    labels: Values, held: npt.NDArray[np.bool_], rng: np.random.Generator
) -> list[Indices]:
    """Divide each class evenly, at random, among the workers that hold it."""
    pieces: list[list[Indices]] = [[] for _ in held]
    for label, holds in zip(np.unique(labels), held.T, strict=True):
        samples = rng.permutation(np.flatnonzero(labels == label))
        holders = np.flatnonzero(holds)
        for worker, piece in zip(holders, np.array_split(samples, len(holders)), strict=True):
            pieces[worker].append(piece)
    return [np.concatenate(piece) for piece in pieces]


@dataclass(frozen=True)
class ClassesPerWorker(Partitioner):
    """Give each worker samples of exactly k classes, every class being shared by about as many workers.

    Source: Li et al. 2022, "Federated Learning on Non-IID Data Silos" (NIID-Bench), "#C = k"; the choice of
    classes is balanced here, so that every class has a holder and none is lost.

    Args:
        k: Classes of each worker, at least 1.
        labels: Where the labels are, if the dataset does not show them (see `find_labels`).
        seed: Seed of this partition alone; None takes the strategy's.

    Raises:
        ValueError: If k is below 1 or above the number of classes, if k times the workers is less than the
            number of classes, or if a class has fewer samples than holders.

    Example:
        >>> labels = np.arange(600) % 10
        >>> parts = ClassesPerWorker(3, labels=labels).split(labels, num_workers=10).indices
        >>> {len(set(labels[part].tolist())) for part in parts}
        {3}
    """

    k: int
    labels: Column | None = field(default=None, kw_only=True, repr=False, compare=False)

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("k", self.k)

    @override
    def partition(self, dataset: MapStyle, num_workers: int, rng: np.random.Generator) -> list[Indices]:
        labels = find_labels(dataset, self.labels)
        classes, sizes = np.unique(labels, return_counts=True)
        self._check(len(classes), num_workers)
        held = choose_classes(len(classes), num_workers, self.k, rng)
        holders = held.sum(axis=0)
        for label, size, number in zip(classes, sizes, holders, strict=True):
            if size < number:
                raise ValueError(
                    f"k={self.k} with {num_workers} workers makes {number} holders of class {label}, which "
                    f"has {size} samples. Use a smaller k or fewer workers."
                )
        return divide_among_holders(labels, held, rng)

    def _check(self, num_classes: int, num_workers: int) -> None:
        if self.k > num_classes:
            raise ValueError(
                f"k={self.k} is more than the {num_classes} classes. Use k of at most {num_classes}."
            )
        if self.k * num_workers < num_classes:
            raise ValueError(
                f"k={self.k} classes at each of {num_workers} workers cannot hold {num_classes} classes: "
                f"samples would be left over. Use k of at least {-(-num_classes // num_workers)}, or more "
                "workers."
            )
