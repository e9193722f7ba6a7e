"""Where one worker's data lies and how it is read there; the data itself stays where it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.utils.data import TensorDataset

from fedlightning.data.loader_settings import LoaderSettings
from fedlightning.data.map_style import MapStyle, check_map_style
from fedlightning.data.shard import Shard
from fedlightning.pointers import ObjectPointer
from fedlightning.pointers.tensor import PointerTensor
from fedlightning.workers import Worker, program

DataPointer: TypeAlias = PointerTensor | ObjectPointer


@dataclass(frozen=True)
class Placement:
    """Name one worker's data.

    Args:
        worker: The worker that holds it.
        pointers: To tensors whose first dimension counts samples, or one pointer to a map-style dataset.
        num_samples: How many samples.
        settings: How they are read.

    Example:
        >>> from fedlightning.workers import VirtualWorker
        >>> bob = VirtualWorker(id="bob")
        >>> inputs, targets = bob.register(torch.rand(100, 3)), bob.register(torch.rand(100))
        >>> settings = LoaderSettings(batch_size=10)
        >>> placement = Placement(bob, (inputs, targets), num_samples=100, settings=settings)
        >>> placement.as_shard().type_name
        'Shard'
    """

    worker: Worker
    pointers: tuple[DataPointer, ...]
    num_samples: int
    settings: LoaderSettings

    def as_shard(self) -> ObjectPointer:
        """Make a `Shard` of the data, at the worker.

        Returns:
            A pointer to it, for programs that run there.
        """
        shard: ObjectPointer = self.worker.start(make_shard, self.pointers, self.settings)
        return shard


@program(returns="data")
def make_shard(data: Sequence[Any], settings: LoaderSettings) -> Shard:
    """Make a shard of data that lies at this worker, without copying it.

    Args:
        data: Tensors with the same first dimension, or a single map-style dataset.
        settings: How it is read.
    """
    if all(isinstance(part, torch.Tensor) for part in data):
        return Shard(TensorDataset(*data), settings)
    (dataset,) = data
    return Shard(dataset, settings)


@program(returns="metadata")
def dataset_length(dataset: MapStyle) -> int:
    """Count the samples of a dataset that lies at this worker."""
    return check_map_style(dataset)
