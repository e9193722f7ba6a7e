"""One worker's data and how it is read: the object that lies at the worker, reached from above by pointer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from fedlightning.data.in_memory import TensorRows, tensor_rows
from fedlightning.data.keyed_loading import KeyedLoader, Ticket
from fedlightning.data.labels import known_labels
from fedlightning.data.loader_settings import LoaderSettings
from fedlightning.data.map_style import MapStyle, check_map_style
from fedlightning.data.order import BatchOrder
from fedlightning.data.partition.base import Indices
from fedlightning.workers.payload import payload_bytes
from fedlightning.workers.random import derive_seed
from fedlightning.workers.remote import register


class Shard:
    """Hold one worker's dataset and make batches of it, as an endless numbered stream.

    Batch b lies in local epoch ``b // num_batches``, and its content is a pure function of (seed, worker, b):
    there is no iterator to keep or to restore, and any slice can be read at any time, in any process.

    Args:
        dataset: A map-style dataset; not copied.
        settings: How it is read.

    Raises:
        TypeError: If the dataset is not map-style.
        ValueError: If it has no samples.

    Example:
        >>> shard = Shard([10, 11, 12], LoaderSettings(batch_size=2))
        >>> [batch.tolist() for batch in shard.batches(first=1, count=2, seed=0, worker="bob")]
        [[12], [10, 11]]
    """

    def __init__(self, dataset: MapStyle, settings: LoaderSettings) -> None:
        self.num_samples = check_map_style(dataset)
        self.dataset = dataset
        self.settings = settings

    @classmethod
    def of(cls, dataset: MapStyle, indices: Indices | Sequence[int], settings: LoaderSettings) -> Shard:
        """Make the shard of some samples of a dataset.

        Args:
            dataset: The whole dataset; not copied.
            indices: Numbers of the worker's samples. All of them, in order, means the dataset itself.
            settings: How it is read.
        """
        # Plain integers, because a user's dataset need not take NumPy's.
        numbers: list[int] = np.asarray(indices).tolist()
        if len(numbers) == len(dataset) and numbers == list(range(len(dataset))):
            return cls(dataset, settings)
        return cls(Subset(cast("Dataset[Any]", dataset), numbers), settings)

    @property
    def num_batches(self) -> int:
        """Batches of a local epoch; 0 if ``drop_last`` leaves none."""
        return self._order.num_batches

    def batches(self, first: int, count: int, *, seed: int, worker: str) -> Iterator[Any]:
        """Read some batches of the stream; torch's, NumPy's and Python's random state stay untouched.

        Args:
            first: Number of the first batch, counted from 0 over all local epochs.
            count: How many.
            seed: Seed of the run.
            worker: Name of the worker.

        Returns:
            An iterator over what the user's DataLoader would make of the same samples.

        Raises:
            ValueError: If ``drop_last`` leaves no batch, or ``first`` or ``count`` is negative.
        """
        if self._rows is not None:
            return self._gathered(self._rows, first, count, seed, worker)
        return self._loaded(first, count, seed, worker)

    @property
    def memory(self) -> tuple[torch.Tensor, ...] | None:
        """The tensors that batches are rows of, where that is all there is to them; else None."""
        return None if self._rows is None or self.settings.pin_memory else self._rows.tensors

    def batch_sizes(self, first: int, count: int) -> list[int]:
        """Return how many samples some batches have; arguments as for `batches`."""
        return self._order.sizes(first, count)

    def rows(self, first: int, count: int, *, seed: int, worker: str) -> torch.Tensor:
        """Return which rows of `memory`, of a shard that has some, make up some batches, one after the other.

        Args:
            first: Number of the first batch, counted from 0 over all local epochs.
            count: How many.
            seed: Seed of the run.
            worker: Name of the worker.

        Returns:
            Numbers of rows, int64, one-dimensional.
        """
        assert self._rows is not None
        runs = self._order.runs(first, count, longest=count, seed=seed, worker=worker)
        return self._rows.numbers(torch.cat(list(runs)))

    def in_order(self) -> Iterator[Any]:
        """Yield every sample once, in order, in batches; for evaluation."""
        settings = replace(self.settings, shuffle=False, drop_last=False)
        whole = Shard(self.dataset, settings)
        yield from whole.batches(0, whole.num_batches, seed=0, worker="")

    def shuffled(self) -> Shard:
        """Return the same data, read in random order up to its last sample, however it is read here."""
        return Shard(self.dataset, replace(self.settings, shuffle=True, drop_last=False))

    def ordinary_loader(self) -> DataLoader[Any]:
        """Make the DataLoader that a user would have made of this dataset, with the same random draws."""
        return self.settings.ordinary_loader(self.dataset)

    def label_counts(self) -> Counter[Any] | None:
        """Count the samples of each class; None if the dataset does not show its labels."""
        labels = known_labels(self.dataset)
        return None if labels is None else Counter(sorted(labels.tolist()))

    def __repr__(self) -> str:
        kind = type(self.dataset).__name__
        return f"Shard({self.num_samples} samples of {kind}, batch_size={self.settings.batch_size})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in ("num_samples", "dataset", "settings")}

    @cached_property
    def _order(self) -> BatchOrder:
        settings = self.settings
        return BatchOrder(self.num_samples, settings.batch_size, settings.shuffle, settings.drop_last)

    @cached_property
    def _rows(self) -> TensorRows | None:
        return tensor_rows(self.dataset, self.settings)

    @cached_property
    def _loader(self) -> KeyedLoader:
        return KeyedLoader(self.dataset, self.settings)

    def _gathered(
        self, rows: TensorRows, first: int, count: int, seed: int, worker: str
    ) -> Iterator[list[torch.Tensor]]:
        size = self.settings.batch_size
        longest = max(rows.at_once // size, 1)
        for positions in self._order.runs(first, count, longest=longest, seed=seed, worker=worker):
            for batch in rows.take_split(positions, size):
                yield self._pinned(batch)

    def _loaded(self, first: int, count: int, seed: int, worker: str) -> Iterator[Any]:
        chosen = self._order.batches(first, count, seed=seed, worker=worker)
        seeds = (derive_seed(seed, "loading", worker, number) for number in range(first, first + count))
        yield from self._loader.read(
            Ticket(positions.tolist(), own) for positions, own in zip(chosen, seeds, strict=True)
        )

    def _pinned(self, batch: list[torch.Tensor]) -> list[torch.Tensor]:
        if self.settings.pin_memory and torch.accelerator.is_available():
            return [tensor.pin_memory() for tensor in batch]
        return batch


@payload_bytes.register
def _(value: Shard) -> int:
    return payload_bytes(value.dataset)


def _from_wire(items: list[Any], unpacker: Any) -> Shard:
    dataset, settings = map(unpacker.unpack, items)
    if not isinstance(settings, LoaderSettings):
        raise TypeError(f"a {type(settings).__name__} says nothing of how a dataset is read")
    return Shard(dataset, settings)


register(
    Shard,
    f"{__name__}:{Shard.__qualname__}",
    lambda shard, packer: [packer.pack(shard.dataset), packer.pack(shard.settings)],
    _from_wire,
)
