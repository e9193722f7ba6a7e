"""Means of parameters taken one after the other, as those of a cohort's blocks are, in memory that stays."""

from __future__ import annotations

import cmath
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.averaging import BufferMean, ParameterMean, RunningWeight
from fedlightning.local.engine import GradModeOff

_ALIGNED = 64  # bytes: as torch aligns what it allocates


class RepeatedMean(ParameterMean):
    """Take a mean as `ParameterMean` does, to the bit, and another in the same memory when it was used.

    Ordinary tensors lie side by side, so that one sum tells whether they are finite.

    Example:
        >>> mean = RepeatedMean()
        >>> for value in (1.0, 5.0):
        ...     mean.restart()
        ...     mean.add([torch.tensor([value])], weight=1)
        ...     mean.add([torch.tensor([value + 1])], weight=1)
        ...     print(mean.result())
        [tensor([1.5000])]
        [tensor([5.5000])]
    """

    def __init__(self) -> None:
        super().__init__()
        self._flat: Tensor | None = None
        self._shapes: list[torch.Size] = []

    def restart(self) -> None:
        """Begin another mean; what `result` has returned is not to be used any more."""
        if self._others:
            self._flat = None  # parts of the result lie elsewhere
        if self._flat is None:
            self._mean = []
        self._weight, self._others, self._means_of_others = RunningWeight(), None, BufferMean()

    @override
    def add(self, tensors: Sequence[Tensor], weight: float) -> None:
        if not self._weight.total and self._has_room_for(tensors):
            self._weight.share_of(weight)
            with GradModeOff():
                torch._foreach_copy_(self._mean, list(tensors))
            return
        if self._others is None and self._flat is not None and cmath.isfinite(self._flat.sum().item()):
            self._others, self._running = [], list(range(len(self._mean)))
        super().add(tensors, weight)

    def _has_room_for(self, tensors: Sequence[Tensor]) -> bool:
        if not all(map(_is_ordinary, tensors)) or len({tensor.dtype for tensor in tensors}) != 1:
            self._flat, self._mean = None, []
            return False
        shapes = [tensor.shape for tensor in tensors]
        if self._flat is None or self._flat.dtype != tensors[0].dtype or shapes != self._shapes:
            self._make_room_for(tensors, shapes)
        return True

    def _make_room_for(self, tensors: Sequence[Tensor], shapes: list[torch.Size]) -> None:
        unit = _ALIGNED // tensors[0].element_size()
        starts = list(accumulate((-(-tensor.numel() // unit) * unit for tensor in tensors), initial=0))
        # Zeros, for what is between them is summed, too.
        flat = self._flat = torch.zeros(starts[-1], dtype=tensors[0].dtype)
        self._shapes, self._dtypes = shapes, [flat.dtype] * len(shapes)
        self._accumulated = self._dtypes
        self._mean = [
            flat[start:end][: shape.numel()].view(shape)
            for (start, end), shape in zip(pairwise(starts), shapes, strict=True)
        ]


def _is_ordinary(tensor: Tensor) -> bool:
    return (
        tensor.dtype in (torch.float32, torch.float64)
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and tensor.device.type == "cpu"
    )
