"""The batches of a chunk of visits: those of one step and shape as one, by one gather where that works."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten
from typing_extensions import override

from fedlightning.local.streams import KeyedStream
from fedlightning.local.vectorised.refusal import NotBatchable
from fedlightning.local.vectorised.stacked_batch import GatheredBatch, Kind, ListedBatch, StackedBatch


class ChunkBatches(ABC):
    """The batches of a chunk of visits, in the order of their steps; those who step longer come first.

    Args:
        numbers: The batches' numbers within their local epochs, shape ``(visits, steps)``; ``None`` where
            nobody asks for them.
        device: Where the batches are to lie.
    """

    def __init__(self, numbers: npt.NDArray[np.int64] | None, device: torch.device) -> None:
        self._numbers = numbers
        self._device = device

    @abstractmethod
    def of_step(self, step: int, active: int) -> Iterator[StackedBatch]:
        """Yield the batches of one step.

        Args:
            step: Counted from 0 at the start of each visit.
            active: How many of the visits, from the first on, are that long.
        """

    def _number(self, worker: int, step: int) -> int:
        return 0 if self._numbers is None else int(self._numbers[worker, step])


class GatheredBatches(ChunkBatches):
    """Batches of rows of the same tensors in memory: one gather for all workers.

    Args:
        tensors: The tensors.
        rows: Which of their rows each visit reads, one after the other, shape ``(visits, samples)``, int64;
            what stands behind those of a shorter visit does not matter.
        sizes: Samples of each batch, shape ``(visits, steps)``.
        numbers: As for `ChunkBatches`.
        device: As for `ChunkBatches`.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor],
        rows: Tensor,
        sizes: npt.NDArray[np.int64],
        numbers: npt.NDArray[np.int64] | None,
        device: torch.device,
    ) -> None:
        super().__init__(numbers, device)
        self._tensors = tensors
        self._rows = rows
        self._offsets = sizes.cumsum(1) - sizes
        self._sizes = sizes
        kinds = np.stack([sizes] if numbers is None else [sizes, numbers])
        # Looked up for all steps at once: whose batches are not of the kind, or the place, of those before.
        self._others = (kinds[:, 1:] != kinds[:, :-1]).any(0)
        self._ahead = self._offsets[1:] != self._offsets[:-1]
        self._some_other, self._some_ahead = self._others.any(0).tolist(), self._ahead.any(0).tolist()
        self._kinds: dict[tuple[int, int], tuple[Kind, ...]] = {}
        _, self._structure = tree_flatten([0] * len(tensors))

    @override
    def of_step(self, step: int, active: int) -> Iterator[StackedBatch]:
        edges: list[int] = []
        if self._some_other[step]:
            edges = (np.flatnonzero(self._others[: active - 1, step]) + 1).tolist()
        for start, stop in zip([0, *edges], [*edges, active], strict=True):
            taken = self._taken(slice(start, stop), step)
            kinds = self._kinds_of(stop - start, int(self._sizes[start, step]))
            about = slice(start, stop), kinds, self._structure, self._number(start, step), self._device
            yield GatheredBatch(self._tensors, taken, *about)

    def _kinds_of(self, workers: int, size: int) -> tuple[Kind, ...]:
        kinds = self._kinds.get((workers, size))
        if kinds is None:
            shapes = [torch.Size((workers, size, *tensor.shape[1:])) for tensor in self._tensors]
            kinds = tuple(zip(shapes, (tensor.dtype for tensor in self._tensors), strict=True))
            self._kinds[workers, size] = kinds
        return kinds

    def _taken(self, workers: slice, step: int) -> Tensor:
        """Return which rows some workers read next, one worker after the other."""
        first, size = int(self._offsets[workers.start, step]), int(self._sizes[workers.start, step])
        if not (self._some_ahead[step] and self._ahead[workers.start : workers.stop - 1, step].any()):
            return self._rows[workers, first : first + size].reshape(-1)
        # Whoever has had a smaller batch before is not as far in its row as the others.
        columns = torch.from_numpy(self._offsets[workers, step])[:, None] + torch.arange(size)
        return self._rows[workers].gather(1, columns).view(-1)


class ReadBatches(ChunkBatches):
    """Batches of any kind, read one by one and stacked.

    Args:
        opened: The batches of each visit.
        numbers: As for `ChunkBatches`.
        device: As for `ChunkBatches`.
    """

    def __init__(
        self,
        opened: Sequence[Iterator[tuple[int, Any]]],
        numbers: npt.NDArray[np.int64] | None,
        device: torch.device,
    ) -> None:
        super().__init__(numbers, device)
        self._open = opened

    @override
    def of_step(self, step: int, active: int) -> Iterator[StackedBatch]:
        read = [_flattened(next(batches)[1]) for batches in self._open[:active]]
        kinds = [
            (self._number(worker, step), structure, tuple(map(_kind, leaves)))
            for worker, (leaves, structure) in enumerate(read)
        ]
        for rows in _runs(kinds):
            number, structure, own = kinds[rows.start]
            columns = [*zip(*(leaves for leaves, _ in read[rows]), strict=True)]
            count = rows.stop - rows.start
            stacked = tuple((torch.Size((count, *shape)), dtype) for shape, dtype in own)
            yield ListedBatch(columns, rows, stacked, structure, number, self._device)


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


def _kind(leaf: Any) -> Kind:
    if not isinstance(leaf, Tensor):
        raise NotBatchable(f"a {type(leaf).__name__} in a batch, beside tensors")
    return leaf.shape, leaf.dtype
