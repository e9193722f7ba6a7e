"""The samples of a round's cohort in shared memory, where a data set is far larger; the next cohort's beside.

A whole data set takes new memory, which costs a system more time than the bytes themselves. Who hears of it
lives in `session`; which cohort comes next is known to whoever asks for a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from fedlightning.data.in_memory import TensorRows
from fedlightning.data.pool import RowPool
from fedlightning.local.vectorised.pooled import PooledErrands
from fedlightning.strategy.processes.shared_memory import Layout, Shape, SharedMemory

PART = 4
"""Only cohorts are placed that have at most this part of a data set: there is room for two of them."""

LEAST_BYTES = 1 << 23
"""Of smaller data sets, all are placed at once."""

MOST_TIMES = 3
"""Once so many times the samples of a data set were put into places, all of it is placed after all."""

_SPARE = 1.25
"""How much more room there is than for the cohort at hand: others may have more samples."""


class CohortRows:
    """Put the samples of one cohort after the other into two places, which take turns.

    Args:
        pool: Where the samples are.

    Attributes:
        pool: Likewise.
        has_to_do: Whether there is no memory for more.

    Example:
        >>> import numpy as np
        >>> from fedlightning.data import LoaderSettings
        >>> data = TensorDataset(torch.tensor([10, 11, 12, 13, 14]))
        >>> indices = {"bob": np.array([0, 2, 4]), "alice": np.array([1, 3])}
        >>> pool = RowPool.of(data, indices, LoaderSettings(batch_size=2))
        >>> place = CohortRows(pool).next_place(rows=2)
        >>> place.take(pool, ["alice"]).tensors[0][:2]
        tensor([11, 13])
    """

    def __init__(self, pool: RowPool) -> None:
        self.pool = pool
        self.has_to_do = False
        self._put = 0
        self._places: list[CohortPlace | None] = [None, None]

    def has_room(self, rows: int) -> bool:
        """Tell whether the place whose turn it is has room for so many samples, or is yet to be made."""
        place = self._places[0]
        return place is None or rows <= place.rows

    def next_place(self, rows: int) -> CohortPlace:
        """Return the place whose turn it is: what was put there before last is over.

        Args:
            rows: How many samples it is for.
        """
        place = self._places[0]
        self._put += rows
        if place is None or rows > place.rows:
            most = max(len(self.pool.tensors[0]) // PART, rows)
            place = CohortPlace(self.pool.tensors, min(int(rows * _SPARE), most))
        self._places = [self._places[1], place]
        return place

    @property
    def is_worth_all(self) -> bool:
        """Whether it would have taken less to place all samples at once, and will, if rounds go on."""
        return not self.has_to_do and self._put > MOST_TIMES * len(self.pool.tensors[0])

    @property
    def places(self) -> Sequence[CohortPlace]:
        """The places that there are now."""
        return [place for place in self._places if place is not None]


class CohortPlace:
    """Shared memory for samples like those of some tensors.

    Args:
        tensors: The tensors.
        rows: For how many samples there is room.

    Attributes:
        memory: The memory.
        shapes: Those of the tensors that lie in it.
        known: What the visits to a cohort have to know of it.
    """

    def __init__(self, tensors: Sequence[Tensor], rows: int) -> None:
        self.rows = rows
        self.shapes = tuple(
            Shape.of(torch.empty((rows, *tensor.shape[1:]), dtype=tensor.dtype, device="meta"))
            for tensor in tensors
        )
        self.memory = SharedMemory(Layout(self.shapes).nbytes)
        self.known = Known.within(self.memory.bytes, self.shapes)

    @torch.no_grad()
    def take(self, pool: RowPool, workers: Sequence[str]) -> RowPool:
        """Put the samples of some workers here, and return a pool in which they have these.

        Args:
            pool: Where they are.
            workers: Names of the workers.
        """
        rows = pool.held_by(workers)
        for tensor, place in zip(pool.tensors, self.known.tensors, strict=True):
            torch.index_select(tensor, 0, rows, out=place[: len(rows)])
        return pool.moved(workers, self.known.dataset, self.known.rows)


@dataclass(frozen=True)
class Known:
    """What both sides know of a place.

    Args:
        dataset: The samples that lie there.
        rows: All of them.
    """

    dataset: TensorDataset
    rows: TensorRows

    @classmethod
    def within(cls, memory: Tensor, shapes: Sequence[Shape]) -> Known:
        """Return what is known of a place in some memory.

        Args:
            memory: The memory.
            shapes: Of the tensors that lie there.
        """
        dataset = TensorDataset(*Layout(tuple(shapes)).within(memory, 0))
        return cls(dataset, TensorRows(dataset.tensors))

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The tensors."""
        return self.dataset.tensors

    @property
    def objects(self) -> Sequence[object]:
        """All of it, in an order."""
        return self.dataset, self.rows, *self.tensors


def is_better_by_cohort(errands: PooledErrands) -> bool:
    """Tell whether the samples of some visits are better placed by themselves than with all others.

    Args:
        errands: The visits of a round.
    """
    tensors = errands.pool.tensors
    if not tensors or any(tensor.device.type != "cpu" for tensor in tensors):
        return False
    rows = int(errands.samples.sum())
    nbytes = sum(prod(tensor.shape) * tensor.element_size() for tensor in tensors)
    return nbytes >= LEAST_BYTES and 0 < rows <= len(tensors[0]) // PART
