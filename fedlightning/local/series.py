"""Numbers with weights, kept one by one and combined at the end: a name's values over steps, or over workers.

On an accelerator they stay there, since reading one would mean to wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Longer series are combined on the way, so that memory does not grow with the steps of a visit.
LONGEST = 1024


def snapshot(value: Tensor) -> float | Tensor:
    """Return what a tensor of one element holds now, whatever is done to it later.

    Args:
        value: Any shape of one element.

    Returns:
        A number where reading it costs nothing; from an accelerator a copy of shape ``()``.
    """
    if value.device.type == "cpu":
        return value.item()
    return value.detach().clone().squeeze()


class Series:
    """Collect numbers with weights.

    Args:
        reduction: ``"mean"`` (weighted), ``"sum"``, ``"max"`` or ``"min"``.

    Attributes:
        weight: Sum of all weights.
    """

    __slots__ = ("_values", "_weights", "reduction", "weight")

    def __init__(self, reduction: str) -> None:
        self.reduction = reduction
        self.weight = 0
        self._values: list[float | Tensor] = []
        self._weights: list[int] = []

    def add(self, value: float | Tensor, weight: int) -> None:
        """Collect one more."""
        if len(self._values) >= LONGEST:
            self._values, self._weights = [self._reduced()], [self.weight]
        self._values.append(value)
        self._weights.append(weight)
        self.weight += weight

    def combined(self, dtype: torch.dtype) -> Tensor:
        """Return all as one number, shape ``()``; equal numbers give that number, to the bit.

        Args:
            dtype: Of the result; several numbers of half precision give one of single precision.
        """
        if dtype in (torch.float16, torch.bfloat16) and len(self._values) > 1:
            dtype = torch.float32
        value = self._reduced()
        return value.to(dtype) if isinstance(value, Tensor) else torch.tensor(value, dtype=dtype)

    def _reduced(self) -> float | Tensor:
        if len(self._values) == 1:
            return self._values[0]
        tensors = [value for value in self._values if isinstance(value, Tensor)]
        if tensors:
            device = tensors[0].device
            return _reduced_there([torch.as_tensor(v, device=device) for v in self._values], self)
        return _reduced_here([float(value) for value in self._values], self)

    def shares(self) -> list[float]:
        """Return each weight as a share of all."""
        return [weight / self.weight for weight in self._weights]


def _reduced_here(values: Sequence[float], series: Series) -> float:
    if any(map(math.isnan, values)):
        return math.nan
    match series.reduction:
        case "sum":
            return sum(values)
        case "max":
            return max(values)
        case "min":
            return min(values)
    first = values[0]
    if all(value == first for value in values):
        return first
    return first + sum((value - first) * share for value, share in zip(values, series.shares(), strict=True))


def _reduced_there(values: list[Tensor], series: Series) -> Tensor:
    stacked = torch.stack([value.to(torch.get_default_dtype()) for value in values])
    match series.reduction:
        case "sum":
            return stacked.sum()
        case "max":
            return stacked.max()
        case "min":
            return stacked.min()
    first = stacked[0]
    shares = torch.tensor(series.shares(), dtype=stacked.dtype, device=stacked.device)
    return first + ((stacked - first) * shares).sum()
