"""Workers as the data itself names them: by patient, writer, speaker, hospital."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from typing_extensions import override

from fedlightning.data.labels import Column, find_column
from fedlightning.data.map_style import MapStyle
from fedlightning.data.partition.base import Indices, Partitioner


@dataclass(frozen=True)
class Natural(Partitioner):
    """Make one worker of each value of a group column; values become the workers' names.

    Workers are ordered by value. Nothing is drawn at random.

    Args:
        column: The group of each sample: an array of shape ``(N,)``, the name of an attribute or column of
            the dataset, the position of a tensor in a `TensorDataset`, or a function from the dataset to an
            array.

    Example:
        >>> speakers = np.array(["romeo", "juliet", "romeo"])
        >>> partition = Natural(speakers).split([0, 1, 2])
        >>> partition.worker_names, [part.tolist() for part in partition.indices]
        (('juliet', 'romeo'), [[1], [0, 2]])
    """

    column: Column = field(repr=False, compare=False)

    @override
    def worker_names(self, dataset: MapStyle) -> tuple[str, ...]:
        return tuple(str(value) for value in np.unique(find_column(dataset, self.column)))

    @override
    def partition(self, dataset: MapStyle, num_workers: int, rng: np.random.Generator) -> list[Indices]:
        values = find_column(dataset, self.column)
        return [np.flatnonzero(values == value) for value in np.unique(values)]
