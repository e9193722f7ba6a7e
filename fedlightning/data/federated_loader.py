"""Batches of pointers over a `FederatedDataset`: each batch lies at one worker, and no data moves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from fedlightning.data.federated_dataset import FederatedDataset
from fedlightning.data.loader_settings import LoaderSettings
from fedlightning.data.order import BatchOrder
from fedlightning.data.placement import Placement
from fedlightning.pointers.tensor import PointerTensor


class FederatedDataLoader:
    """Iterate over the batches of a `FederatedDataset`, worker after worker.

    A batch is made by one index message per tensor. Each iteration is a new epoch; with ``shuffle`` it has
    an order of its own within each worker, the same for the same seed and number of the epoch.

    Args:
        dataset: Where the data lies.
        batch_size: Samples per batch, at least 1.
        shuffle: Whether each epoch has a random order.
        drop_last: Whether a last, smaller batch of each worker is left out.
        seed: Seed of the shuffling in this loop. A strategy that takes this loader uses its own.

    Raises:
        TypeError: If ``dataset`` is no `FederatedDataset`.
        ValueError: If ``batch_size`` is below 1.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from fedlightning.workers import VirtualWorker
        >>> workers = [VirtualWorker(id="bob"), VirtualWorker(id="alice")]
        >>> data = TensorDataset(torch.randn(5, 2), torch.randn(5, 1))
        >>> loader = FederatedDataLoader(FederatedDataset.from_dataset(data, workers), batch_size=2)
        >>> [(x.location.id, tuple(x.shape), tuple(y.shape)) for x, y in loader]
        [('bob', (2, 2), (2, 1)), ('alice', (2, 2), (2, 1)), ('alice', (1, 2), (1, 1))]
    """

    def __init__(
        self,
        dataset: FederatedDataset,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        if not isinstance(dataset, FederatedDataset):
            raise TypeError(
                f"dataset={type(dataset).__name__} is no FederatedDataset: make one with "
                "FederatedDataset.from_dataset(dataset, workers), or read it with an ordinary DataLoader."
            )
        self.dataset = dataset
        self.settings = LoaderSettings(batch_size=batch_size, shuffle=shuffle, drop_last=drop_last)
        self.seed = seed
        self._epoch = 0

    @property
    def batch_size(self) -> int:
        """Samples per batch."""
        return self.settings.batch_size

    @property
    def drop_last(self) -> bool:
        """Whether a last, smaller batch of each worker is left out."""
        return self.settings.drop_last

    def set_epoch(self, epoch: int) -> None:
        """Choose the number of the next epoch, for a loop that goes on after a restart."""
        self._epoch = epoch

    def placements(self) -> list[Placement]:
        """List where the data lies and how it is read, for whoever trains at the workers themselves."""
        samples = self.dataset.samples
        return [
            Placement(worker, self.dataset[worker.id], samples[worker.id], self.settings)
            for worker in self.dataset.workers
        ]

    def __len__(self) -> int:
        return sum(self._order(count).num_batches for count in self.dataset.samples.values())

    def __iter__(self) -> Iterator[tuple[PointerTensor, ...]]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        return self._batches_of_epoch(epoch)

    def _batches_of_epoch(self, epoch: int) -> Iterator[tuple[PointerTensor, ...]]:
        # A generator, because Lightning opens an iterator of every loader, just to see whether it can.
        for worker_id in self.dataset.samples:
            yield from self._batches(worker_id, self._tensors(worker_id), epoch)

    def _batches(
        self, worker_id: str, tensors: tuple[PointerTensor, ...], epoch: int
    ) -> Iterator[tuple[PointerTensor, ...]]:
        order = self._order(self.dataset.samples[worker_id])
        if order.num_batches == 0:
            return
        first = epoch * order.num_batches
        for positions in order.batches(first, order.num_batches, seed=self.seed, worker=worker_id):
            yield tuple(cast("PointerTensor", tensor[positions]) for tensor in tensors)

    def _order(self, num_samples: int) -> BatchOrder:
        settings = self.settings
        return BatchOrder(num_samples, settings.batch_size, settings.shuffle, settings.drop_last)

    def _tensors(self, worker_id: str) -> tuple[PointerTensor, ...]:
        pointers = self.dataset[worker_id]
        tensors = tuple(pointer for pointer in pointers if isinstance(pointer, PointerTensor))
        if len(tensors) != len(pointers):
            raise TypeError(
                f"The data at {worker_id!r} is a dataset object, which has no batches of pointers. Train "
                "on it with FederatedStrategy or a program, or send tensors (a TensorDataset) instead."
            )
        return tensors
