"""The batches of visits to workers whose samples lie in one pool, visit by visit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedlightning.data.in_memory import rows_at_once
from fedlightning.local.vectorised.pooled import PooledErrands

BatchOfVisit = tuple[int, list[Tensor], int]
"""Number within the local epoch, the batch, and its samples."""

_VISITS_AT_ONCE = 64
_ROWS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class _Drawn:
    """What some visits read: rows, and the number and the size of each batch; in order of the visits."""

    first: int
    rows: list[Tensor]
    numbers: list[list[int]]
    sizes: list[list[int]]


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

    def of(self, number: int) -> Iterator[BatchOfVisit]:
        """Yield the batches of a visit.

        Args:
            number: Its position.
        """
        place = number - self._drawn.first
        if not 0 <= place < len(self._drawn.rows):
            self._drawn, place = self._draw(number), 0
        rows, sizes = self._drawn.rows[place], self._drawn.sizes[place]
        numbers = self._drawn.numbers[place]
        if len(rows) <= self._at_once:
            return zip(numbers, self._gathered(rows, sizes), sizes, strict=True)
        return self._one_by_one(rows, sizes, numbers)

    def _gathered(self, rows: Tensor, sizes: list[int]) -> Iterator[list[Tensor]]:
        # Other than `split`, it lets user code write to a batch what requires a gradient.
        parts = [
            torch.unsafe_split_with_sizes(tensor.index_select(0, rows), sizes) for tensor in self._tensors
        ]
        return map(list, zip(*parts, strict=True))

    def _one_by_one(self, rows: Tensor, sizes: list[int], numbers: list[int]) -> Iterator[BatchOfVisit]:
        for number, own, size in zip(numbers, torch.split(rows, sizes), sizes, strict=True):
            yield number, [tensor.index_select(0, own) for tensor in self._tensors], size

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
