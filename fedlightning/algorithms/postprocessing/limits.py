"""Bounds and noise: how far one worker can move the model, and how well that can be told."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.numbers import require_at_least
from fedlightning.algorithms.postprocessing.base import Keeper, Postprocessor
from fedlightning.workers.remote import record


@record
@dataclass(frozen=True)
class Clip(Postprocessor):
    """Scale an update down to a norm, if it is longer (McMahan et al. 2018, Algorithm 1, flat clipping).

    Args:
        norm: The largest L2 norm over all parameters together, above 0.

    Raises:
        ValueError: ``norm`` is not above 0.

    Example:
        >>> Clip(norm=1.0).apply([torch.tensor([3.0, 4.0])], None)[0]
        [tensor([0.6000, 0.8000])]
    """

    norm: float

    def __post_init__(self) -> None:
        require_at_least("norm", self.norm, 0)
        if self.norm == 0:
            raise ValueError("norm must be above 0, got 0: nothing would be left of an update.")

    @override
    def apply(self, tensors: list[Tensor], keeper: Keeper) -> tuple[list[Tensor], list[Tensor]]:
        if not tensors:
            return tensors, []
        length = torch.stack(torch._foreach_norm(tensors)).double().norm()
        if length <= self.norm:
            return tensors, []
        return list(torch._foreach_mul(tensors, self.norm / float(length))), []


@record
@dataclass(frozen=True)
class GaussianNoise(Postprocessor):
    """Add independent normal noise to every entry.

    After `Clip`, this is the local Gaussian mechanism; nothing here accounts for what it spends.

    Args:
        std: Standard deviation of the noise, at least 0.

    Raises:
        ValueError: ``std`` is negative.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> GaussianNoise(std=0.1).apply([torch.zeros(2)], None)[0]
        [tensor([ 0.1541, -0.0293])]
    """

    std: float

    def __post_init__(self) -> None:
        require_at_least("std", self.std, 0)

    @override
    def apply(self, tensors: list[Tensor], keeper: Keeper) -> tuple[list[Tensor], list[Tensor]]:
        return [tensor + self.std * torch.randn_like(tensor) for tensor in tensors], []
