"""Optimizers taken apart into a step by statistics that stay as they are, and what the statistics learn.

Karimireddy et al. 2021, "Breaking the centralized barrier for cross-device federated learning", table 1:
``U`` and ``V``. How they are used lives in ``mime``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.numbers import require_at_least
from fedlightning.workers.remote import record

Statistics = Mapping[str, Tensor]
"""What an optimizer knows of one parameter, by name."""


class FixedStatistics(ABC):
    """One optimizer's ``U`` and ``V``."""

    names: ClassVar[tuple[str, ...]]
    """What it knows of each parameter."""

    def begin(self, parameters: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """Return what it knows before the first round.

        Args:
            parameters: The global parameters.
        """
        return {name: [self._first(name, tensor) for tensor in parameters] for name in self.names}

    def _first(self, name: str, parameter: Tensor) -> Tensor:
        return torch.zeros_like(parameter)

    @abstractmethod
    def direction(self, gradient: Tensor, known: Statistics) -> Tensor:
        """Return what a step subtracts, but for the learning rate (``U``).

        Args:
            gradient: The step's gradient.
            known: The parameter's statistics; not to be written to.
        """

    @abstractmethod
    def learned(self, gradient: Tensor, known: Statistics) -> dict[str, Tensor]:
        """Return the statistics after a gradient of the whole cohort (``V``).

        Args:
            gradient: The gradient.
            known: The parameter's statistics before; not to be written to.
        """


@record
@dataclass(frozen=True)
class FixedMomentum(FixedStatistics):
    """Momentum: a step is ``(1 - beta) * g + beta * m``, and ``m`` learns that of the cohort.

    Args:
        beta: How much of ``m`` counts, at least 0 and less than 1; 0 is plain SGD.

    Raises:
        ValueError: ``beta`` is out of range.

    Example:
        >>> FixedMomentum(beta=0.5).direction(torch.tensor(4.0), {"m": torch.tensor(2.0)})
        tensor(3.)
    """

    beta: float = 0.9

    names: ClassVar[tuple[str, ...]] = ("m",)

    def __post_init__(self) -> None:
        _require_share("beta", self.beta)

    @override
    def direction(self, gradient: Tensor, known: Statistics) -> Tensor:
        return (1 - self.beta) * gradient + self.beta * known["m"]

    @override
    def learned(self, gradient: Tensor, known: Statistics) -> dict[str, Tensor]:
        return {"m": self.direction(gradient, known)}


@record
@dataclass(frozen=True)
class FixedRMSProp(FixedStatistics):
    """RMSProp: a step is ``g / (sqrt(v) + eps)``, and ``v`` learns the cohort's squared gradient.

    Args:
        beta: How much of ``v`` is kept from round to round, at least 0 and less than 1.
        eps: Least size that gradients are divided by, more than 0.
        initial: What ``v`` begins with, at least 0. With 0, the first round divides by ``eps`` alone.

    Raises:
        ValueError: A setting is out of range.

    Example:
        >>> FixedRMSProp(eps=1.0).direction(torch.tensor(4.0), {"v": torch.tensor(1.0)})
        tensor(2.)
    """

    beta: float = 0.99
    eps: float = 1e-3
    initial: float = 1.0

    names: ClassVar[tuple[str, ...]] = ("v",)

    def __post_init__(self) -> None:
        _require_share("beta", self.beta)
        _require_sizes(self.eps, self.initial)

    @override
    def _first(self, name: str, parameter: Tensor) -> Tensor:
        return torch.full_like(parameter, self.initial)

    @override
    def direction(self, gradient: Tensor, known: Statistics) -> Tensor:
        return gradient / (known["v"].sqrt() + self.eps)

    @override
    def learned(self, gradient: Tensor, known: Statistics) -> dict[str, Tensor]:
        return {"v": self.beta * known["v"] + (1 - self.beta) * gradient.square()}


@record
@dataclass(frozen=True)
class FixedAdam(FixedStatistics):
    """Adam: momentum, divided as by RMSProp; no correction of either for its start.

    Args:
        betas: How much of ``m`` and of ``v`` is kept, at least 0 and less than 1.
        eps: Least size that gradients are divided by, more than 0.
        initial: What ``v`` begins with, at least 0. With 0, the first round divides by ``eps`` alone.

    Raises:
        ValueError: A setting is out of range.

    Example:
        >>> known = {"m": torch.tensor(0.0), "v": torch.tensor(1.0)}
        >>> FixedAdam(betas=(0.5, 0.9), eps=1.0).direction(torch.tensor(4.0), known)
        tensor(1.)
    """

    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-3
    initial: float = 1.0

    names: ClassVar[tuple[str, ...]] = ("m", "v")

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        if len(self.betas) != 2:
            raise ValueError(f"betas must be two numbers, got {self.betas!r}.")
        for beta in self.betas:
            _require_share("betas", beta)
        _require_sizes(self.eps, self.initial)

    @override
    def _first(self, name: str, parameter: Tensor) -> Tensor:
        return torch.full_like(parameter, self.initial if name == "v" else 0.0)

    @override
    def direction(self, gradient: Tensor, known: Statistics) -> Tensor:
        pushed = (1 - self.betas[0]) * gradient + self.betas[0] * known["m"]
        return pushed / (known["v"].sqrt() + self.eps)

    @override
    def learned(self, gradient: Tensor, known: Statistics) -> dict[str, Tensor]:
        m = (1 - self.betas[0]) * gradient + self.betas[0] * known["m"]
        return {"m": m, "v": self.betas[1] * known["v"] + (1 - self.betas[1]) * gradient.square()}


def _require_share(name: str, beta: float) -> None:
    if not 0 <= beta < 1:
        raise ValueError(f"{name} must be at least 0 and less than 1, got {beta!r}.")


def _require_sizes(eps: float, initial: float) -> None:
    require_at_least("eps", eps, 0)
    if eps == 0:
        raise ValueError("eps must be more than 0, got 0: it keeps steps finite where v is 0.")
    require_at_least("initial", initial, 0)
