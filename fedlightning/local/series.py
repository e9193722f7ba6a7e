"""Numbers with weights, kept one by one and combined at the end: a name's values over steps, or over workers.

On an accelerator they stay there, since reading one would mean to wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Values: TypeAlias = npt.NDArray[np.float64]

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
            self._values, self._weights = [self.reduced()], [self.weight]
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
        value = self.reduced()
        return value.to(dtype) if isinstance(value, Tensor) else torch.tensor(value, dtype=dtype)

    def reduced(self) -> float | Tensor:
        """Return all as one number."""
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


def reduced_rows(values: Values, weights: npt.NDArray[np.int64], reduction: str) -> Values:
    """Combine numbers as `Series` combines them, to the bit, of several series of the same length.

    Args:
        values: Shape ``(series, numbers)``.
        weights: Of the same shape.
        reduction: As of `Series`.

    Returns:
        Shape ``(series,)``.

    Example:
        >>> reduced_rows(np.array([[1.0, 4.0], [2.0, 2.0]]), np.array([[1, 2], [1, 1]]), "mean")
        array([3., 2.])
    """
    first = values[:, 0]
    if values.shape[1] == 1:
        return first
    # Infinities are subtracted silently here as well.
    with np.errstate(invalid="ignore", over="ignore"):
        match reduction:
            case "sum":
                combined = _added(values)
            case "max":
                combined = values.max(1)
            case "min":
                combined = values.min(1)
            case _:
                shares = weights / weights.sum(1, keepdims=True)
                mean = first + _added((values - first[:, None]) * shares)
                combined = np.where((values == first[:, None]).all(1), first, mean)
    return np.where(np.isnan(values).any(1), np.nan, combined)


def _added(values: Values) -> Values:
    """Add up each row as `_sum` does."""
    added: Values = np.add.accumulate(values, axis=1)[:, -1]
    return added


def _reduced_here(values: Sequence[float], series: Series) -> float:
    if any(map(math.isnan, values)):
        return math.nan
    match series.reduction:
        case "sum":
            return _sum(values)
        case "max":
            return max(values)
        case "min":
            return min(values)
    first = values[0]
    if all(value == first for value in values):
        return first
    return first + _sum((value - first) * share for value, share in zip(values, series.shares(), strict=True))


def _sum(values: Iterable[float]) -> float:
    # Plainly, one after the other: the built-in sum rounds otherwise from Python 3.12 on.
    total = 0.0
    for value in values:
        total += value
    return total


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
