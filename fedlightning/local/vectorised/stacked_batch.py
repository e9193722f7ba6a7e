"""The batches of several workers as one, read when somebody asks for them, and where they are wanted.

Who is in one is decided in ``batches``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeAlias

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils._pytree import TreeSpec
from typing_extensions import override

Kind: TypeAlias = tuple[torch.Size, torch.dtype]
"""Shape and type of a tensor: what batches must have in common to be stacked."""


class StackedBatch(ABC):
    """The batches of some workers of a chunk, in one step; read when somebody asks for them.

    Args:
        rows: Which workers.
        kinds: Shape, ``(workers, ...)``, and type of each tensor of their batches.
        structure: How the tensors lie in one batch.
        batch_idx: The batches' number within their local epochs; 0 where nobody asks for it.
        device: Where they are to lie.
    """

    def __init__(
        self, rows: slice, kinds: tuple[Kind, ...], structure: TreeSpec, batch_idx: int, device: torch.device
    ) -> None:
        self.rows = rows
        self.kinds = kinds
        self.structure = structure
        self.batch_idx = batch_idx
        self._device = device

    @cached_property
    def tensors(self) -> list[Tensor]:
        """The tensors of the batches."""
        return [t if t.device == self._device else move_data_to_device(t, self._device) for t in self._read()]

    @abstractmethod
    def read_into(self, places: Sequence[Tensor]) -> None:
        """Put the tensors of the batches where they are wanted.

        Args:
            places: Of the same shapes and types.
        """

    @abstractmethod
    def _read(self) -> list[Tensor]:
        """Return the tensors, on whatever device they are."""


class GatheredBatch(StackedBatch):
    """Rows of the same tensors.

    Args:
        sources: The tensors.
        taken: Which of their rows, one worker after the other, int64.
        about: As for `StackedBatch`.
    """

    def __init__(self, sources: Sequence[Tensor], taken: Tensor, *about: Any) -> None:
        super().__init__(*about)
        self._sources = sources
        self._taken = taken

    @override
    def read_into(self, places: Sequence[Tensor]) -> None:
        for source, place in zip(self._sources, places, strict=True):
            if source.device == place.device:
                torch.index_select(source, 0, self._taken_at(source), out=place.flatten(0, 1))
            else:
                place.copy_(source.index_select(0, self._taken_at(source)).view_as(place))

    @override
    def _read(self) -> list[Tensor]:
        return [
            source.index_select(0, self._taken_at(source)).view(shape)
            for source, (shape, _) in zip(self._sources, self.kinds, strict=True)
        ]

    def _taken_at(self, source: Tensor) -> Tensor:
        return self._taken if source.device == self._taken.device else self._taken.to(source.device)


class ListedBatch(StackedBatch):
    """Batches that lie apart from each other.

    Args:
        columns: Of each tensor those of all workers.
        about: As for `StackedBatch`.
    """

    def __init__(self, columns: Sequence[Sequence[Tensor]], *about: Any) -> None:
        super().__init__(*about)
        self._columns = columns

    @override
    def read_into(self, places: Sequence[Tensor]) -> None:
        for column, place in zip(self._columns, places, strict=True):
            if column[0].device == place.device:
                torch.stack(list(column), out=place)
            else:
                place.copy_(torch.stack(list(column)))

    @override
    def _read(self) -> list[Tensor]:
        return [torch.stack(list(column)) for column in self._columns]
