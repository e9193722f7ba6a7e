"""Attacks by what is sent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.attacks.bad_workers import DataAttack, UpdateAttack
from fedlightning.algorithms.numbers import require_at_least
from fedlightning.workers.remote import record


@record
@dataclass(frozen=True)
class SignFlip(UpdateAttack):
    """Go the other way (Li et al. 2019, "RSA").

    Args:
        scale: How far, as a multiple of the true update.

    Example:
        >>> SignFlip(scale=2.0).change([torch.tensor([1.0, -3.0])])
        [tensor([-2.,  6.])]
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        require_at_least("scale", self.scale, 0)

    @override
    def change(self, way: list[Tensor]) -> list[Tensor]:
        return list(torch._foreach_mul(way, -self.scale))


@record
@dataclass(frozen=True)
class Replacement(UpdateAttack):
    """Scale the update up, so that the mean becomes this worker's model (Bagdasaryan et al. 2020).

    The paper's workers first train a back door into that model: ``trained_on=BackdoorPatch(target=0)``.

    Args:
        scale: By how much; the number of workers in a round replaces the mean altogether.
        trained_on: What is done to the data; ``None`` to train as all do.

    Raises:
        TypeError: ``trained_on`` is something else.
        ValueError: ``scale`` is negative.

    Example:
        >>> Replacement(scale=10.0).change([torch.tensor([1.0])])
        [tensor([10.])]
    """

    scale: float = 10.0
    trained_on: DataAttack | None = None

    def __post_init__(self) -> None:
        require_at_least("scale", self.scale, 0)
        if self.trained_on is not None and not isinstance(self.trained_on, DataAttack):
            raise TypeError(
                "trained_on must be an attack on data such as BackdoorPatch(target=0), got "
                f"{self.trained_on!r}."
            )

    @override
    def change(self, way: list[Tensor]) -> list[Tensor]:
        return list(torch._foreach_mul(way, self.scale))


@record
@dataclass(frozen=True)
class Gaussian(UpdateAttack):
    """Send normal noise in place of an update (Blanchard et al. 2017, section 5).

    Args:
        std: Its standard deviation.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> Gaussian(std=1.0).change([torch.zeros(2)])
        [tensor([ 1.5410, -0.2934])]
    """

    std: float = 1.0

    def __post_init__(self) -> None:
        require_at_least("std", self.std, 0)

    @override
    def change(self, way: list[Tensor]) -> list[Tensor]:
        return [self.std * torch.randn_like(tensor) for tensor in way]
