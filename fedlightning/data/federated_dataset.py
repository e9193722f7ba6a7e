"""A dataset whose parts lie at workers: the controller holds pointers and knows the numbers of samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from fedlightning.data.in_memory import tensor_rows
from fedlightning.data.loader_settings import LoaderSettings
from fedlightning.data.map_style import MapStyle
from fedlightning.data.partition import IID, Partitioner
from fedlightning.data.partition.base import fingerprint_of, part_of
from fedlightning.data.placement import DataPointer, dataset_length
from fedlightning.pointers import ObjectPointer
from fedlightning.pointers.tensor import PointerTensor
from fedlightning.workers import Worker, check_unique_ids


class FederatedDataset:
    """Hold pointers to the parts of a dataset, each at another worker.

    It is no `torch.utils.data.Dataset`: its items are parts, not samples. Making it moves no data.

    Args:
        parts: For each worker a pointer to a map-style dataset, or a tuple of pointers to tensors whose first
            dimension counts samples (such as inputs and targets): a mapping from workers, or just the list.

    Attributes:
        workers: Who holds a part.
        samples: Number of samples, by worker name.
        fingerprint: A digest of who has which samples; ``None`` where they were not divided here.

    Raises:
        TypeError: If something else than pointers is given.
        ValueError: If there are no parts, two at the same worker, pointers of one part to different workers
            or with different numbers of samples, or a part that is not at the worker named for it.

    Example:
        >>> from fedlightning.workers import VirtualWorker
        >>> bob, alice = VirtualWorker(id="bob"), VirtualWorker(id="alice")
        >>> x, y = torch.zeros(6, 2), torch.zeros(6)
        >>> dataset = FederatedDataset(
        ...     {bob: (bob.send(x[:4]), bob.send(y[:4])), alice: (alice.send(x[4:]), alice.send(y[4:]))}
        ... )
        >>> dataset
        FederatedDataset(6 samples: 4 at bob, 2 at alice)
    """

    def __init__(self, parts: Mapping[Worker, Any] | Iterable[Any]) -> None:
        named = parts.items() if isinstance(parts, Mapping) else ((None, part) for part in parts)
        placed = [_place(worker, pointers) for worker, pointers in named]
        if not placed:
            raise ValueError("parts is empty: give pointers to the data of at least one worker.")
        check_unique_ids(worker for worker, _ in placed)
        self.workers: tuple[Worker, ...] = tuple(worker for worker, _ in placed)
        self.fingerprint: str | None = None
        self._parts = {worker.id: pointers for worker, pointers in placed}
        self.samples: dict[str, int] = {
            worker.id: _count_samples(worker, pointers) for worker, pointers in placed
        }

    @classmethod
    def from_dataset(
        cls,
        dataset: MapStyle,
        workers: Sequence[Worker],
        partition: Partitioner | None = None,
        seed: int = 0,
        *,
        private: bool = False,
    ) -> FederatedDataset:
        """Divide a dataset that is here, and send each worker its part.

        Tensors in memory (a `TensorDataset`, or a `Subset` of one) arrive as tensors, anything else as a
        `Subset`, which only programs can read.

        Args:
            dataset: A map-style dataset.
            workers: Who gets the parts. If the partition names workers, each gets the part of its name; if
                parts are drawn, the names decide who gets which, not the order in which they are listed.
            partition: How samples are divided; None for `IID`.
            seed: Seed of the partition, if it has none of its own.
            private: Whether the parts are registered as a data owner's own, which a policy may refuse to let
                leave. Otherwise they are the controller's, which `.get()` brings back.

        Returns:
            Pointers to the parts.

        Raises:
            TypeError: If the dataset is not map-style.
            ValueError: If there are no workers, more than samples, two of the same name, or others than the
                partition names.
        """
        if not workers:
            raise ValueError("workers is empty: give at least one worker to hold the data.")
        check_unique_ids(workers)
        split = (partition or IID()).split(dataset, len(workers), seed)
        names = [worker.id for worker in workers]
        indices, changes = split.by_name(names), split.changes_by_name(names)
        placed = cls(
            {
                worker: tuple(
                    worker.register(value) if private else worker.send(value)
                    for value in _payload(
                        part_of(dataset, indices[worker.id], changes.get(worker.id), split.inputs)
                    )
                )
                for worker in workers
            }
        )
        placed.fingerprint = fingerprint_of(indices, changes)
        return placed

    def __getitem__(self, worker_id: str) -> tuple[DataPointer, ...]:
        if worker_id not in self._parts:
            raise KeyError(f"No data at a worker {worker_id!r}; there is some at {', '.join(self._parts)}.")
        return self._parts[worker_id]

    def __len__(self) -> int:
        return sum(self.samples.values())

    def __repr__(self) -> str:
        where = ", ".join(f"{count} at {name}" for name, count in self.samples.items())
        return f"FederatedDataset({len(self)} samples: {where})"


def _payload(part: MapStyle) -> tuple[Any, ...]:
    """Return what is sent of a part: its tensors, where it is made of tensors alone, or itself."""
    rows = tensor_rows(part, LoaderSettings())
    return (part,) if rows is None else tuple(rows.take(torch.arange(len(part))))


def _place(worker: Worker | None, pointers: Any) -> tuple[Worker, tuple[DataPointer, ...]]:
    """Find the worker that all pointers of a part point to."""
    part = tuple(pointers) if isinstance(pointers, tuple | list) else (pointers,)
    if not part or not all(isinstance(pointer, PointerTensor | ObjectPointer) for pointer in part):
        kinds = ", ".join(type(pointer).__name__ for pointer in part) or "nothing"
        raise TypeError(
            f"parts must hold pointers, got {kinds}: send the data first (`tensor.send(worker)`), or use "
            "FederatedDataset.from_dataset(dataset, workers)."
        )
    places = {pointer.location for pointer in part} | ({worker} if worker is not None else set())
    if len(places) > 1:
        names = sorted(place.id for place in places)
        raise ValueError(
            f"One part has pointers to several workers ({', '.join(names)}). Give each worker its own "
            "part, with all of its pointers at that worker."
        )
    return places.pop(), part


def _count_samples(worker: Worker, pointers: tuple[DataPointer, ...]) -> int:
    if len(pointers) == 1 and isinstance(pointers[0], ObjectPointer):
        return int(worker.run(dataset_length, pointers[0]))
    if not all(isinstance(pointer, PointerTensor) and pointer.dim() > 0 for pointer in pointers):
        raise ValueError(
            f"The part at {worker.id!r} must be tensors whose first dimension counts samples, or one dataset."
        )
    counts = {int(pointer.shape[0]) for pointer in pointers if isinstance(pointer, PointerTensor)}
    if len(counts) > 1:
        raise ValueError(
            f"The tensors at {worker.id!r} have different numbers of samples ({sorted(counts)}). Give "
            "tensors with the same first dimension."
        )
    return counts.pop()
