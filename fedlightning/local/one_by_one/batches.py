"""The batches of visits to workers whose samples lie in one pool, visit by visit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedlightning.data.in_memory import rows_at_once
from fedlightning.local.vectorised.pooled import PooledErrands

_VISITS_AT_ONCE = 64
_ROWS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class _Drawn:
    """What some visits read: rows, and the number and the size of each batch; in order of the visits."""

    first: int
    rows: list[Tensor]
    numbers: list[list[int]]
    sizes: list[list[int]]


class VisitBatch:
    """A batch of a visit, which is read when somebody asks for it.

    Args:
        number: Its number within the local epoch.
        size: Its samples.
        sources: What it is of.
        rows: Which rows of that, int64.
        tensors: The batch, where it has been read.
    """

    __slots__ = ("_rows", "_sources", "_tensors", "number", "size")

    def __init__(
        self,
        number: int,
        size: int,
        sources: Sequence[Tensor] = (),
        rows: Tensor | None = None,
        tensors: list[Tensor] | None = None,
    ) -> None:
        self.number = number
        self.size = size
        self._sources = sources
        self._rows = rows
        self._tensors = tensors

    @property
    def tensors(self) -> list[Tensor]:
        """The batch, as a loader would yield it."""
        if self._tensors is None:
            assert self._rows is not None
            self._tensors = [source.index_select(0, self._rows) for source in self._sources]
        return self._tensors

    def read_into(self, places: Sequence[Tensor]) -> None:
        """Put the batch into given memory.

        Args:
            places: Of its shapes and types.
        """
        if self._rows is None:
            for place, tensor in zip(places, self.tensors, strict=True):
                place.copy_(tensor)
            return
        for source, place in zip(self._sources, places, strict=True):
            torch.index_select(source, 0, self._rows, out=place)


class VisitBatches:
    """Read the batches of visits that come in the order of their numbers.

    Args:
        errands: The visits.
    """

    def __init__(self, errands: PooledErrands) -> None:
        self._errands = errands
        self._tensors = errands.pool.tensors
        self._at_once = rows_at_once(self._tensors)
        longest = int((errands.steps * errands.pool.settings.batch_size).max())
        self._visits_at_once = min(_VISITS_AT_ONCE, max(1, _ROWS_AT_ONCE // longest))
        self._drawn = _Drawn(0, [], [], [])

    @property
    def kinds(self) -> list[tuple[torch.Size, torch.dtype]]:
        """Shape of a sample and type of each of the tensors that batches are of."""
        return [(tensor.shape[1:], tensor.dtype) for tensor in self._tensors]

    def draw_ahead(self) -> None:
        """Draw what the first visits read before anybody asks for it."""
        self._drawn = self._draw(0)

    def of(self, number: int, *, each_by_itself: bool = False) -> Iterator[VisitBatch]:
        """Yield the batches of a visit.

        Args:
            number: Its position.
            each_by_itself: Whether batches are read one at a time, rather than all at once.
        """
        place = number - self._drawn.first
        if not 0 <= place < len(self._drawn.rows):
            self._drawn, place = self._draw(number), 0
        rows, sizes = self._drawn.rows[place], self._drawn.sizes[place]
        numbers = self._drawn.numbers[place]
        if len(rows) <= self._at_once and not each_by_itself:
            read = zip(numbers, sizes, self._gathered(rows, sizes), strict=True)
            return (VisitBatch(batch_idx, size, tensors=tensors) for batch_idx, size, tensors in read)
        parts = zip(numbers, sizes, torch.split(rows, sizes), strict=True)
        return (VisitBatch(batch_idx, size, self._tensors, own) for batch_idx, size, own in parts)

    def _gathered(self, rows: Tensor, sizes: list[int]) -> Iterator[list[Tensor]]:
        # Other than `split`, it lets user code write to a batch what requires a gradient.
        parts = [
            torch.unsafe_split_with_sizes(tensor.index_select(0, rows), sizes) for tensor in self._tensors
        ]
        return map(list, zip(*parts, strict=True))

    def _draw(self, first: int) -> _Drawn:
        """Draw what a visit reads, and those after it."""
        errands = self._errands
        some = errands.some(np.arange(first, min(first + self._visits_at_once, len(errands))))
        every, sizes = some.batch_numbers()
        steps = some.steps.tolist()
        own_sizes = [row[:count] for row, count in zip(sizes.tolist(), steps, strict=True)]
        own_numbers = [row[:count] for row, count in zip(every.tolist(), steps, strict=True)]
        rows = [row[: sum(own)] for row, own in zip(some.rows().unbind(), own_sizes, strict=True)]
        return _Drawn(first, rows, own_numbers, own_sizes)
