"""The batches of a chunk of visits: those of one step and shape as one, by one gather where that works."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten
from typing_extensions import override

from fedlightning.local.streams import KeyedStream
from fedlightning.local.vectorised.refusal import NotBatchable
from fedlightning.local.visit import Visit


@dataclass(frozen=True)
class StackedBatch:
    """The batches of some workers of a chunk, in one step.

    Args:
        rows: Which workers.
        tensors: The tensors of their batches, each of shape ``(workers, ...)``.
        structure: How these lie in one batch.
        batch_idx: The batches' number within their local epochs; 0 where nobody asks for it.
    """

    rows: slice
    tensors: list[Tensor]
    structure: TreeSpec
    batch_idx: int


class ChunkBatches(ABC):
    """The batches of a chunk of visits, in the order of their steps; those who step longer come first.

    Args:
        streams: The workers' streams.
        visits: What is asked of each.
        numbered: Whether the module reads the number of a batch.
        device: Where the batches are to lie.
    """

    def __init__(
        self,
        streams: Sequence[KeyedStream],
        visits: Sequence[Visit],
        *,
        numbered: bool,
        device: torch.device,
    ) -> None:
        self._streams = streams
        self._visits = visits
        self._numbered = numbered
        self._device = device

    @abstractmethod
    def of_step(self, step: int, active: int) -> Iterator[StackedBatch]:
        """Yield the batches of one step.

        Args:
            step: Counted from 0 at the start of each visit.
            active: How many of the visits, from the first on, are that long.
        """

    def _number(self, worker: int, step: int) -> int:
        if not self._numbered:
            return 0
        return (self._visits[worker].first_step + step) % self._streams[worker].shard.num_batches


class GatheredBatches(ChunkBatches):
    """Batches of rows of the same tensors in memory: one gather for all workers."""

    def __init__(
        self,
        streams: Sequence[KeyedStream],
        visits: Sequence[Visit],
        *,
        numbered: bool,
        device: torch.device,
    ) -> None:
        super().__init__(streams, visits, numbered=numbered, device=device)
        self._tensors = streams[0].memory or ()
        self._sizes = [
            stream.batch_sizes(visit.first_step, visit.steps)
            for stream, visit in zip(streams, visits, strict=True)
        ]
        rows = [
            stream.rows(visit.first_step, visit.steps) for stream, visit in zip(streams, visits, strict=True)
        ]
        self._rows = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        self._offsets = [0] * len(streams)
        _, self._structure = tree_flatten([0] * len(self._tensors))

    @override
    def of_step(self, step: int, active: int) -> Iterator[StackedBatch]:
        place = [
            (self._sizes[worker][step], self._offsets[worker], self._number(worker, step))
            for worker in range(active)
        ]
        for rows in _runs(place):
            size, offset, number = place[rows.start]
            taken = self._rows[rows, offset : offset + size].reshape(-1)
            count = rows.stop - rows.start
            tensors = [
                tensor.index_select(0, taken.to(tensor.device)).view(count, size, *tensor.shape[1:])
                for tensor in self._tensors
            ]
            yield StackedBatch(rows, _moved(tensors, self._device), self._structure, number)
        for worker in range(active):
            self._offsets[worker] += self._sizes[worker][step]


class ReadBatches(ChunkBatches):
    """Batches of any kind, read one by one and stacked."""

    def __init__(
        self,
        streams: Sequence[KeyedStream],
        visits: Sequence[Visit],
        *,
        numbered: bool,
        device: torch.device,
    ) -> None:
        super().__init__(streams, visits, numbered=numbered, device=device)
        self._open = [
            stream.take(visit.first_step, visit.steps) for stream, visit in zip(streams, visits, strict=True)
        ]

    @override
    def of_step(self, step: int, active: int) -> Iterator[StackedBatch]:
        read = [_flattened(next(batches)[1]) for batches in self._open[:active]]
        kinds = [
            (self._number(worker, step), structure, tuple(map(_kind, leaves)))
            for worker, (leaves, structure) in enumerate(read)
        ]
        for rows in _runs(kinds):
            number, structure, _ = kinds[rows.start]
            columns = zip(*(leaves for leaves, _ in read[rows]), strict=True)
            tensors = [torch.stack(column) for column in columns]
            yield StackedBatch(rows, _moved(tensors, self._device), structure, number)


def batches_of(
    streams: Sequence[KeyedStream], visits: Sequence[Visit], *, numbered: bool, device: torch.device
) -> ChunkBatches:
    """Choose how the batches of a chunk are read; see `ChunkBatches` for the arguments."""
    kind = GatheredBatches if in_same_memory(streams) else ReadBatches
    return kind(streams, visits, numbered=numbered, device=device)


def in_same_memory(streams: Sequence[KeyedStream]) -> bool:
    """Tell whether the batches of some streams are rows of the same tensors."""
    first = streams[0].memory
    return first is not None and all(
        own is not None and len(own) == len(first) and all(a is b for a, b in zip(own, first, strict=True))
        for own in (stream.memory for stream in streams[1:])
    )


def _runs(values: Sequence[Any]) -> Iterator[slice]:
    """Divide positions into the longest runs of equal values."""
    start = 0
    for position in range(1, len(values) + 1):
        if position == len(values) or values[position] != values[start]:
            yield slice(start, position)
            start = position


def _flattened(batch: Any) -> tuple[list[Any], TreeSpec]:
    if batch is None:
        raise NotBatchable("a loader that yields None in place of a batch")
    return tree_flatten(batch)


def _kind(leaf: Any) -> tuple[Any, ...]:
    if not isinstance(leaf, Tensor):
        raise NotBatchable(f"a {type(leaf).__name__} in a batch, beside tensors")
    return leaf.shape, leaf.dtype


def _moved(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    return [t if t.device == device else move_data_to_device(t, device) for t in tensors]
