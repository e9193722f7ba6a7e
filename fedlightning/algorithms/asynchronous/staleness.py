"""How much an update that comes late still counts.

Xie et al. 2019, "Asynchronous Federated Optimization", section 5.2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from typing_extensions import override

from fedlightning.data.checks import check_real


class Staleness(ABC):
    """Scale an update by its staleness: the server's updates since its worker has begun, 0 for none.

    Example:
        >>> class Never(Staleness):
        ...     def scale(self, staleness):
        ...         return 0.0 if staleness else 1.0
        >>> Never()(0), Never()(2)
        (1.0, 0.0)
    """

    def __call__(self, staleness: int) -> float:
        """Return what an update is multiplied by.

        Args:
            staleness: Updates of the server between the worker's start and its arrival.

        Raises:
            ValueError: It is negative.
        """
        if staleness < 0:
            raise ValueError(
                f"staleness={staleness} counts the server's updates since the worker has begun, and must be "
                "at least 0. An update cannot arrive before its start."
            )
        return self.scale(staleness)

    @abstractmethod
    def scale(self, staleness: int) -> float:
        """Return the scale at a staleness of at least 0; 1 at 0."""


@dataclass(frozen=True)
class Constant(Staleness):
    """Let updates count the same however late they come.

    Example:
        >>> Constant()(5)
        1.0
    """

    @override
    def scale(self, staleness: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Polynomial(Staleness):
    """Let updates count ``(staleness + 1) ** -a``.

    Args:
        a: The exponent, at least 0; at 0 they count the same. FedBuff's is 0.5.

    Raises:
        ValueError: It is negative.

    Example:
        >>> Polynomial(a=0.5)(3)
        0.5
    """

    a: float = 0.5

    def __post_init__(self) -> None:
        check_real("a", self.a, zero_allowed=True, remedy="Use 0 for no scaling.")

    @override
    def scale(self, staleness: int) -> float:
        return float((staleness + 1) ** -self.a)


@dataclass(frozen=True)
class Hinge(Staleness):
    """Let updates count fully up to a staleness of ``b``, and ``1 / (a * (staleness - b) + 1)`` beyond.

    Args:
        a: How fast they lose weight beyond, at least 0.
        b: Up to where they count fully, at least 0.

    Raises:
        ValueError: One is negative.

    Example:
        >>> Hinge(a=0.5, b=4)(4), Hinge(a=0.5, b=4)(6)
        (1.0, 0.5)
    """

    a: float = 10.0
    b: float = 4.0

    def __post_init__(self) -> None:
        check_real("a", self.a, zero_allowed=True, remedy="Use 0 for no scaling.")
        check_real("b", self.b, zero_allowed=True, remedy="Use 0 for none that count fully.")

    @override
    def scale(self, staleness: int) -> float:
        return 1.0 if staleness <= self.b else 1.0 / (self.a * (staleness - self.b) + 1)


def check_staleness(staleness: object) -> None:
    """Refuse what is no function of staleness.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(staleness, Staleness):
        raise TypeError(f"staleness must be a function such as Polynomial(a=0.5), got {staleness!r}.")
