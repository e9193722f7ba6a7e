"""Fewer bits for each entry: levels between the least and the largest, or the sign alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.postprocessing.base import Keeper, Postprocessor, Shapes, count
from fedlightning.workers.remote import record

WIDTHS = (1, 2, 4, 8)


@record
@dataclass(frozen=True)
class Quantize(Postprocessor):
    """Round every entry to one of ``2**bits`` levels between its tensor's least and largest entry.

    Stochastic rounding goes up or down with the probabilities that make it right on average (Suresh et al.
    2017, section 2.2; Alistarh et al. 2017).

    Args:
        bits: 8, 4, 2 or 1 for each entry; two numbers for each tensor go along.
        stochastic: Whether to round at random, unbiased, rather than to the nearest level.

    Raises:
        ValueError: ``bits`` is none of these.

    Example:
        >>> codes, scale = Quantize(bits=2).apply([torch.tensor([0.0, 1.0, 2.0, 3.0])], None)
        >>> codes[0].dtype, codes[0].numel()
        (torch.uint8, 1)
        >>> Quantize(bits=2).undo(codes, scale, [(4,)])
        [tensor([0., 1., 2., 3.])]
    """

    bits: int = 8
    stochastic: bool = False

    def __post_init__(self) -> None:
        if self.bits not in WIDTHS:
            raise ValueError(f"bits must be one of {WIDTHS}, got {self.bits!r}.")

    @override
    def apply(self, tensors: list[Tensor], keeper: Keeper) -> tuple[list[Tensor], list[Tensor]]:
        codes, along = [], []
        for tensor in tensors:
            low, high = torch.aminmax(tensor) if tensor.numel() else (tensor.new_zeros(()),) * 2
            step = (high - low) / (2**self.bits - 1)
            levels = torch.nan_to_num((tensor - low) / step, nan=0.0)  # where all entries are equal
            levels = (levels + torch.rand_like(levels)).floor() if self.stochastic else levels.round()
            codes.append(_packed(levels.clamp(0, 2**self.bits - 1).to(torch.uint8), self.bits))
            along.append(torch.stack([low, step]))
        return codes, along

    @override
    def undo(self, tensors: list[Tensor], along: list[Tensor], shapes: Shapes) -> list[Tensor]:
        undone = []
        for codes, (low, step), shape in zip(tensors, along, shapes, strict=True):
            levels = _unpacked(codes, self.bits, count(shape))
            undone.append((low + step * levels).view(shape))
        return undone

    @override
    def shapes(self, shapes: Shapes) -> Shapes:
        return [(_bytes(count(shape), self.bits),) for shape in shapes]


@record
@dataclass(frozen=True)
class Sign(Postprocessor):
    """Send the sign of every entry, one bit each (Bernstein et al. 2018, signSGD).

    With `MajorityVote` as the aggregation rule the cohort's majority decides. Zero counts as positive.

    Args:
        scaled: Whether each tensor's mean magnitude goes along, and signs are scaled by it (Karimireddy et
            al. 2019, EF-signSGD, with error feedback); otherwise entries come out as 1 and -1.

    Example:
        >>> bits, scale = Sign().apply([torch.tensor([0.5, -1.5, 1.0])], None)
        >>> Sign().undo(bits, scale, [(3,)])
        [tensor([ 1., -1.,  1.])]
    """

    scaled: bool = True

    @override
    def apply(self, tensors: list[Tensor], keeper: Keeper) -> tuple[list[Tensor], list[Tensor]]:
        bits = [_packed((tensor >= 0).to(torch.uint8), 1) for tensor in tensors]
        return bits, [tensor.abs().mean() if self.scaled else tensor.new_ones(()) for tensor in tensors]

    @override
    def undo(self, tensors: list[Tensor], along: list[Tensor], shapes: Shapes) -> list[Tensor]:
        return [
            torch.where(_unpacked(bits, 1, count(shape)).bool(), scale, -scale).view(shape)
            for bits, scale, shape in zip(tensors, along, shapes, strict=True)
        ]

    @override
    def shapes(self, shapes: Shapes) -> Shapes:
        return [(_bytes(count(shape), 1),) for shape in shapes]


def _bytes(entries: int, bits: int) -> int:
    return -(-entries * bits // 8)


def _packed(codes: Tensor, bits: int) -> Tensor:
    """Put several codes into each byte.

    Args:
        codes: Any shape, uint8, each below ``2**bits``.
        bits: 1, 2, 4 or 8.
    """
    row, each = codes.reshape(-1), 8 // bits
    row = torch.nn.functional.pad(row, (0, -row.numel() % each))
    return (row.view(-1, each) << _shifts(bits, row)).sum(1, dtype=torch.uint8)


def _unpacked(packed: Tensor, bits: int, entries: int) -> Tensor:
    """Return the codes, as uint8, of what `_packed` returned."""
    codes: Tensor = (packed[:, None] >> _shifts(bits, packed)) & (2**bits - 1)
    return codes.reshape(-1)[:entries]


def _shifts(bits: int, like: Tensor) -> Tensor:
    return torch.arange(0, 8, bits, dtype=torch.uint8, device=like.device)
