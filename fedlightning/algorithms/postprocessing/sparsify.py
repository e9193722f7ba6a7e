"""A few entries of an update in place of all: the largest, or some at random."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.postprocessing.base import Keeper, Postprocessor, Shapes, count, flat, split
from fedlightning.workers.remote import record


@record
@dataclass(frozen=True)
class TopK(Postprocessor):
    """Send the entries of largest magnitude, with their positions (Aji and Heafield 2017).

    Biased: use it with error feedback, or what is never among the largest is never learned.

    Args:
        fraction: Share of all entries that is sent, above 0 and at most 1; at least one entry.

    Raises:
        ValueError: ``fraction`` is no such share.

    Example:
        >>> values, positions = TopK(fraction=0.5).apply([torch.tensor([1.0, -5.0, 3.0, 0.0])], None)
        >>> values, positions
        ([tensor([-5.,  3.])], [tensor([1, 2], dtype=torch.int32)])
    """

    fraction: float

    def __post_init__(self) -> None:
        _check_fraction(self.fraction)

    @override
    def apply(self, tensors: list[Tensor], keeper: Keeper) -> tuple[list[Tensor], list[Tensor]]:
        row = flat(tensors)
        kept = _kept(self.fraction, row.numel())
        # In the order of their positions, so that equal magnitudes give the same bits on every machine.
        positions = row.abs().topk(kept, sorted=False).indices.sort().values
        return [row[positions]], [positions.to(torch.int32)]

    @override
    def undo(self, tensors: list[Tensor], along: list[Tensor], shapes: Shapes) -> list[Tensor]:
        (values,), (positions,) = tensors, along
        row = values.new_zeros(sum(count(shape) for shape in shapes))
        row[positions.long()] = values
        return split(row, shapes)

    @override
    def shapes(self, shapes: Shapes) -> Shapes:
        return [(_kept(self.fraction, sum(count(shape) for shape in shapes)),)]


@record
@dataclass(frozen=True)
class RandomK(Postprocessor):
    """Send entries drawn at random; the positions follow from a seed, which goes along (Konečný et al. 2016).

    Args:
        fraction: Share of all entries that is sent, above 0 and at most 1; at least one entry.
        unbiased: Whether they are scaled up, so that the expectation is the update itself; not wanted with
            error feedback.

    Raises:
        ValueError: ``fraction`` is no such share.

    Example:
        >>> sent, seed = RandomK(fraction=0.5).apply([torch.ones(4)], None)
        >>> sent
        [tensor([2., 2.])]
        >>> RandomK(fraction=0.5).undo(sent, seed, [(4,)])[0].sum()
        tensor(4.)
    """

    fraction: float
    unbiased: bool = True

    def __post_init__(self) -> None:
        _check_fraction(self.fraction)

    @override
    def apply(self, tensors: list[Tensor], keeper: Keeper) -> tuple[list[Tensor], list[Tensor]]:
        row = flat(tensors)
        seed = torch.randint(2**62, ())
        values = row[self._positions(row.numel(), seed).to(row.device)]
        return [values * (row.numel() / values.numel()) if self.unbiased else values], [seed]

    @override
    def undo(self, tensors: list[Tensor], along: list[Tensor], shapes: Shapes) -> list[Tensor]:
        (values,), (seed,) = tensors, along
        row = values.new_zeros(sum(count(shape) for shape in shapes))
        row[self._positions(row.numel(), seed).to(row.device)] = values
        return split(row, shapes)

    @override
    def shapes(self, shapes: Shapes) -> Shapes:
        return [(_kept(self.fraction, sum(count(shape) for shape in shapes)),)]

    def _positions(self, entries: int, seed: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(int(seed))
        return torch.randperm(entries, generator=generator)[: _kept(self.fraction, entries)]


def _kept(fraction: float, entries: int) -> int:
    return min(entries, max(1, math.ceil(fraction * entries)))


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, got {fraction!r}.")
