"""Label skew as a table that the user writes down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from fedlightning.data.labels import Column, Values, find_labels
from fedlightning.data.map_style import MapStyle
from fedlightning.data.partition.base import Indices, Partitioner, cut
from fedlightning.data.partition.counts import counts_from_shares


def divide_by_table(
    labels: Values, table: npt.NDArray[np.float64], rng: np.random.Generator
) -> list[Indices]:
    """Divide each class over the workers in proportion to its column of a table.

    Args:
        labels: One class per sample, shape ``(N,)``.
        table: Non-negative shares of shape ``(num_workers, num_classes)``, each column with a positive sum.
        rng: Source of randomness.

    Returns:
        One array of sample numbers per worker.
    """
    pieces: list[list[Indices]] = [[] for _ in table]
    for label, shares in zip(np.unique(labels), table.T, strict=True):
        samples = rng.permutation(np.flatnonzero(labels == label))
        for worker, piece in enumerate(cut(samples, counts_from_shares(shares, len(samples)))):
            pieces[worker].append(piece)
    return [np.concatenate(piece) for piece in pieces]


@dataclass(frozen=True)
class LabelShares(Partitioner):
    """Divide each class over the workers by given shares (a distribution-based partition).

    Args:
        table: Row j, column k: the share of class k (in sorted order) that worker j gets; shape
            ``(num_workers, num_classes)``, non-negative. A column need not sum to 1.
        labels: Where the labels are, if the dataset does not show them (see `find_labels`).
        seed: Seed of this partition alone; None takes the strategy's.

    Raises:
        ValueError: If the table is not 2-D, has a negative or non-finite share, a column without a share, or
            not as many rows as workers or columns as classes; or if a worker gets no samples.

    Example:
        >>> labels = np.array([0] * 10 + [1] * 10)
        >>> parts = LabelShares([[0.9, 0.5], [0.1, 0.5]], labels=labels).split(labels, 2).indices
        >>> [np.bincount(labels[part]).tolist() for part in parts]
        [[9, 5], [1, 5]]
    """

    table: Sequence[Sequence[float]] | npt.NDArray[np.float64] = field(repr=False, compare=False)
    labels: Column | None = field(default=None, kw_only=True, repr=False, compare=False)

    written_down = True

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        table = np.asarray(self.table, dtype=np.float64)
        if table.ndim != 2:
            raise ValueError(f"table must have shape (num_workers, num_classes), got {table.shape}.")
        if not np.isfinite(table).all() or (table < 0).any():
            raise ValueError(
                "table must hold finite, non-negative shares; use 0 for a class that a worker lacks."
            )
        if (table.sum(axis=0) <= 0).any():
            lost = int(np.flatnonzero(table.sum(axis=0) <= 0)[0])
            raise ValueError(f"table gives nobody class number {lost}; give somebody a positive share of it.")

    @override
    def partition(self, dataset: MapStyle, num_workers: int, rng: np.random.Generator) -> list[Indices]:
        labels = find_labels(dataset, self.labels)
        table = np.asarray(self.table, dtype=np.float64)
        expected = (num_workers, len(np.unique(labels)))
        if table.shape != expected:
            raise ValueError(
                f"table must have a row per worker and a column per class, shape {expected}; got "
                f"{table.shape}."
            )
        return divide_by_table(labels, table, rng)
