"""The samples of many workers as rows of the same tensors: what can be read before anybody has a shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import TensorDataset
from typing_extensions import override

from fedlightning.data.in_memory import TensorRows, tensor_rows
from fedlightning.data.loader_settings import LoaderSettings
from fedlightning.data.map_style import MapStyle
from fedlightning.data.order import BatchOrder
from fedlightning.data.partition.base import Indices
from fedlightning.data.shard import Shard

Numbers: TypeAlias = npt.NDArray[np.int64]


class RowPool:
    """Read the batches of workers whose samples are a division of one dataset, as their shards would.

    Args:
        dataset: The whole dataset; not copied.
        indices: Numbers of each worker's samples, by name.
        settings: How shards are read.
        rows: Where the samples are.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.tensor([10, 11, 12, 13, 14]))
        >>> indices = {"bob": np.array([0, 2, 4]), "alice": np.array([1, 3])}
        >>> pool = RowPool.of(data, indices, LoaderSettings(batch_size=2))
        >>> pool.rows(["alice", "bob"], [0, 1], [1, 2], seed=0)
        tensor([[1, 3, 1],
                [4, 0, 2]])
    """

    def __init__(
        self, dataset: MapStyle, indices: Mapping[str, Indices], settings: LoaderSettings, rows: TensorRows
    ) -> None:
        self.tensors = rows.tensors
        self.settings = settings
        self._dataset = dataset
        self._indices = indices
        self._rows = rows
        self._orders: dict[int, BatchOrder] = {}

    @classmethod
    def of(
        cls, dataset: MapStyle, indices: Mapping[str, Indices], settings: LoaderSettings
    ) -> RowPool | None:
        """Return the pool of a dataset; ``None`` where a batch is more than rows of tensors in memory.

        Args:
            dataset: The whole dataset.
            indices: Numbers of each worker's samples, by name.
            settings: How shards are read.
        """
        rows = None if settings.pin_memory else tensor_rows(dataset, settings)
        return None if rows is None else cls(dataset, indices, settings, rows)

    def part(self, workers: Sequence[str]) -> RowPool:
        """Return the pool of some of the workers, of the same dataset.

        Args:
            workers: Their names.
        """
        indices = {worker: self._indices[worker] for worker in workers}
        return RowPool(self._dataset, indices, self.settings, self._rows)

    def held_by(self, workers: Sequence[str]) -> Tensor:
        """Return which rows of the tensors some workers have, one worker after the other, int64.

        Args:
            workers: Their names.
        """
        rows = torch.from_numpy(np.concatenate([self._indices[worker] for worker in workers]))
        return rows if self._rows.rows is None else self._rows.rows[rows]

    def moved(self, workers: Sequence[str], dataset: TensorDataset, rows: TensorRows) -> RowPool:
        """Return the pool of some workers whose samples were copied to the head of another dataset.

        They lie there in the order of `held_by`.

        Args:
            workers: Their names.
            dataset: The dataset.
            rows: All of its rows.
        """
        indices = OneAfterAnother(workers, self.samples(workers))
        return RowPool(dataset, indices, self.settings, rows)

    @property
    def roots(self) -> Sequence[object]:
        """What the pools of any of the workers have in common."""
        return self._dataset, self.settings, self._rows, *self._rows.tensors

    def shard(self, worker: str) -> Shard:
        """Make the shard of a worker.

        Args:
            worker: Its name.
        """
        return Shard.of(self._dataset, self._indices[worker], self.settings)

    def samples(self, workers: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the number of samples of each of some workers."""
        return np.array([len(self._indices[worker]) for worker in workers], dtype=np.int64)

    def order(self, samples: int) -> BatchOrder:
        """Return how shards of a size are cut into batches."""
        if samples not in self._orders:
            settings = self.settings
            self._orders[samples] = BatchOrder(
                samples, settings.batch_size, settings.shuffle, settings.drop_last
            )
        return self._orders[samples]

    def rows(
        self,
        workers: Sequence[str],
        first: Sequence[int] | Numbers,
        counts: Sequence[int] | Numbers,
        *,
        seed: int,
    ) -> Tensor:
        """Return which rows of the tensors make up some batches of some workers, as `Shard.rows` would.

        Args:
            workers: Names of the workers.
            first: Number of the first batch of each, counted from 0 over all local epochs.
            counts: How many batches of each.
            seed: Seed of the run.

        Returns:
            Numbers of rows, int64, shape ``(workers, rows of the longest)``, filled up with any.
        """
        own = [self._indices[worker] for worker in workers]
        sizes = np.array([len(part) for part in own])
        padded = self._positions(sizes, np.asarray(first), np.asarray(counts), seed, workers)
        in_own = padded + torch.from_numpy(np.cumsum(sizes) - sizes).unsqueeze(1)
        rows = torch.from_numpy(np.concatenate(own))[in_own]
        return rows if self._rows.rows is None else self._rows.rows[rows]

    def _positions(
        self, sizes: Numbers, first: Numbers, counts: Numbers, seed: int, workers: Sequence[str]
    ) -> Tensor:
        """Return which of their samples the workers read, drawn at once for those that do alike."""
        known, size_of = np.unique(sizes, return_inverse=True)
        every = np.array([self.order(size).num_batches for size in known.tolist()])[size_of]
        what = np.stack([sizes, counts, first % every])
        if (what == what[:, :1]).all():
            order = self.order(int(sizes[0]))
            return order.positions_of_many(first, int(counts[0]), seed=seed, workers=workers)
        drawn: dict[int, Tensor] = {}
        kinds, kind_of = np.unique(what, axis=1, return_inverse=True)
        for kind, (size, count, _) in enumerate(kinds.T.tolist()):
            alike = np.flatnonzero(kind_of == kind)
            names = [workers[number] for number in alike.tolist()]
            own = self.order(size).positions_of_many(first[alike], count, seed=seed, workers=names)
            drawn |= zip(alike.tolist(), own, strict=True)
        return pad_sequence([drawn[number] for number in range(len(workers))], batch_first=True)


class OneAfterAnother(Mapping[str, Indices]):
    """Tell which samples workers have where they lie one worker after the other, from the first sample on.

    Args:
        workers: Names of the workers.
        counts: How many samples each has.

    Example:
        >>> OneAfterAnother(["alice", "bob"], np.array([2, 3]))["bob"]
        array([2, 3, 4])
    """

    def __init__(self, workers: Sequence[str], counts: Numbers) -> None:
        self._workers = workers
        self._counts = counts
        ends = counts.cumsum().tolist()
        starts = [0, *ends[:-1]]
        self._bounds = dict(zip(workers, zip(starts, ends, strict=True), strict=True))

    def __reduce__(self) -> tuple[type[OneAfterAnother], tuple[Sequence[str], Numbers]]:
        return OneAfterAnother, (self._workers, self._counts)

    @override
    def __getitem__(self, worker: str) -> Indices:
        return np.arange(*self._bounds[worker], dtype=np.int64)

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._bounds)

    @override
    def __len__(self) -> int:
        return len(self._bounds)
