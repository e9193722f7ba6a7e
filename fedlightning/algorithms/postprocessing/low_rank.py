"""Matrices of low rank in place of full ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.postprocessing.base import Keeper, Postprocessor, Shapes, count
from fedlightning.workers.remote import record


@record
@dataclass(frozen=True)
class PowerSGD(Postprocessor):
    """Send two thin factors of each matrix, by one step of power iteration (Vogels et al. 2019, Algorithm 1).

    Tensors of more than two dimensions are matrices of their first one by all others. The iteration goes on
    from the factors of the worker's last visit, which the worker keeps. Vectors, and matrices that factors
    would not make smaller, are sent as they are. Biased: use it with error feedback, as the paper does.

    Args:
        rank: Columns of the factors, at least 1.

    Raises:
        ValueError: ``rank`` is less.

    Example:
        >>> from fedlightning.algorithms.postprocessing import Memo
        >>> matrix = torch.outer(torch.arange(1.0, 7.0), torch.arange(1.0, 6.0))
        >>> factors, along = PowerSGD(rank=1).apply([matrix], Memo())
        >>> [tuple(factor.shape) for factor in factors]
        [(6, 1), (5, 1)]
        >>> bool(torch.allclose(PowerSGD(rank=1).undo(factors, along, [(6, 5)])[0], matrix))
        True
    """

    rank: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"rank must be a whole number of at least 1, got {self.rank!r}.")

    @override
    def apply(self, tensors: list[Tensor], keeper: Keeper) -> tuple[list[Tensor], list[Tensor]]:
        before = keeper.kept("powersgd") or [torch.zeros(0)] * len(tensors)
        made: list[Tensor] = []
        after: list[Tensor] = []
        for tensor, right in zip(tensors, before, strict=True):
            if not self._is_factored(tuple(tensor.shape)):
                made.append(tensor)
                after.append(right)
                continue
            matrix = tensor.reshape(len(tensor), -1)
            if not right.any():  # the first visit, or one after nothing was learned
                right = torch.randn(matrix.shape[1], self.rank, dtype=matrix.dtype, device=matrix.device)
            left = torch.linalg.qr(matrix @ right).Q
            right = matrix.T @ left
            made += [left, right]
            after.append(right)
        keeper.keep("powersgd", after)
        return made, []

    @override
    def undo(self, tensors: list[Tensor], along: list[Tensor], shapes: Shapes) -> list[Tensor]:
        parts = iter(tensors)
        undone = []
        for shape in shapes:
            first = next(parts)
            undone.append((first @ next(parts).T).view(shape) if self._is_factored(shape) else first)
        return undone

    @override
    def shapes(self, shapes: Shapes) -> Shapes:
        made: list[tuple[int, ...]] = []
        for shape in shapes:
            if self._is_factored(shape):
                made += [(shape[0], self.rank), (count(shape) // shape[0], self.rank)]
            else:
                made.append(shape)
        return made

    def _is_factored(self, shape: tuple[int, ...]) -> bool:
        if len(shape) < 2 or 0 in shape:
            return False
        rows, columns = shape[0], count(shape) // shape[0]
        return self.rank * (rows + columns) < rows * columns
