"""Whole batches of tensors in memory by one gather per tensor, instead of sample by sample.

What lies in files or is transformed on the way is read by `fedlightning.data.keyed_loading`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import prod
from typing import cast

import torch
from torch.utils.data import Subset, TensorDataset, default_collate

from fedlightning.data.loader_settings import LoaderSettings
from fedlightning.data.map_style import MapStyle

# One gather for many small batches saves their starts; beyond what a cache holds, there is nothing to gain.
_BYTES_AT_ONCE = 2**20


class TensorRows:
    """Rows of tensors: what a `TensorDataset`, or a `Subset` of one, holds.

    Args:
        tensors: The tensors of the whole dataset, each of shape ``(N, ...)``; not copied.
        rows: Which rows are meant, int64, shape ``(n,)``; None for all.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], rows: torch.Tensor | None = None) -> None:
        self.tensors = tuple(tensors)
        self.rows = rows
        self._here = all(tensor.device.type == "cpu" for tensor in self.tensors)

    def take(self, positions: torch.Tensor) -> list[torch.Tensor]:
        """Gather a batch, equal to what torch's default collation makes of the samples.

        Args:
            positions: Positions among the rows, int64, shape ``(b,)``.

        Returns:
            A list (as the default collation returns) of new tensors, each of shape ``(b, ...)``.
        """
        rows = self.numbers(positions)
        if self._here:
            return [tensor.index_select(0, rows) for tensor in self.tensors]
        return [tensor.index_select(0, rows.to(tensor.device)) for tensor in self.tensors]

    def numbers(self, positions: torch.Tensor) -> torch.Tensor:
        """Return which rows of the whole tensors are at some positions, int64, shape ``(b,)``."""
        return positions if self.rows is None else self.rows.index_select(0, positions)

    def take_split(self, positions: torch.Tensor, batch_size: int) -> Iterator[list[torch.Tensor]]:
        """Gather the rows of several batches at once and yield them one by one.

        Args:
            positions: Positions among the rows, int64, shape ``(b,)``.
            batch_size: Rows of a batch; the last may have fewer.

        Yields:
            What `take` would return for each batch; the tensors of different batches lie in one piece of
            memory, but autograd takes them for separate ones.
        """
        gathered = self.take(positions)
        # Other than `split`, it lets user code write to a batch what requires a gradient.
        batches = [torch.unsafe_split(tensor, batch_size) for tensor in gathered]
        return map(list, zip(*batches, strict=True))

    @cached_property
    def at_once(self) -> int:
        """How many rows to gather at once, at least 1."""
        return rows_at_once(self.tensors)


def rows_at_once(tensors: Sequence[torch.Tensor]) -> int:
    """Return how many rows of some tensors to gather at once, at least 1.

    Args:
        tensors: Each of shape ``(N, ...)``.

    Example:
        >>> rows_at_once([torch.zeros(8, 1024), torch.zeros(8, 1024)])
        128
    """
    of_row = sum(prod(tensor.shape[1:]) * tensor.element_size() for tensor in tensors)
    return max(_BYTES_AT_ONCE // max(of_row, 1), 1)


def tensor_rows(dataset: MapStyle, settings: LoaderSettings) -> TensorRows | None:
    """Find out whether batches of a dataset are gathers of tensors, so that a loader is not needed.

    Args:
        dataset: Any map-style dataset.
        settings: How it is read.

    Returns:
        The rows, or None where reading sample by sample could give anything else.
    """
    if settings.collate_fn not in (None, default_collate):
        return None
    # Exact types: a subclass may transform samples.
    if type(dataset) is Subset:
        inner = tensor_rows(cast("MapStyle", dataset.dataset), settings)
        rows = torch.as_tensor(dataset.indices, dtype=torch.int64)
        if inner is None or (rows.numel() and rows.min() < 0):
            return None
        return TensorRows(inner.tensors, rows if inner.rows is None else inner.rows[rows])
    if type(dataset) is TensorDataset and all(_stacks_like_a_gather(tensor) for tensor in dataset.tensors):
        return TensorRows(dataset.tensors)
    return None


def _stacks_like_a_gather(tensor: torch.Tensor) -> bool:
    """Whether stacking rows gives the same memory layout as gathering them (channels-last does not)."""
    return (
        type(tensor) is torch.Tensor
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and not tensor.requires_grad
        and not tensor.is_conj()
        and not tensor.is_neg()
    )
