"""Quantities that differ from worker to worker: given for each, or drawn from a distribution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isinf, log
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from fedlightning.data.checks import check_real
from fedlightning.workers.random import derive_seed


@runtime_checkable
class Distribution(Protocol):
    """What a quantity of each worker is drawn from."""

    def draw(self, generator: np.random.Generator) -> float:
        """Draw the quantity of one worker."""


Quantity: TypeAlias = float | Mapping[str, float] | Distribution
"""The same for all workers, given for each by name, or drawn for each."""


@dataclass(frozen=True)
class LogNormal:
    """Draw from a log-normal distribution: most are near the median, and a few are many times it.

    Args:
        median: Half of the workers have less.
        sigma: Standard deviation of the logarithm; 0 for the median at all workers, 1 for one in six with
            more than 2.7 times the median.

    Raises:
        ValueError: The median is not positive, or sigma negative.

    Example:
        >>> import numpy as np
        >>> round(LogNormal(median=2.0, sigma=1.0).draw(np.random.default_rng(0)), 2)
        2.27
    """

    median: float
    sigma: float

    def __post_init__(self) -> None:
        check_real("median", self.median, zero_allowed=False, remedy="Half of the workers are below it.")
        check_real("sigma", self.sigma, zero_allowed=True, remedy="Use 0 for no difference.")

    def draw(self, generator: np.random.Generator) -> float:
        """Draw the quantity of one worker."""
        return float(generator.lognormal(log(self.median), self.sigma))


@dataclass(frozen=True)
class Uniform:
    """Draw evenly between two bounds.

    Args:
        low: The least.
        high: The most.

    Raises:
        ValueError: A bound is negative, or the upper one is below the lower one.

    Example:
        >>> import numpy as np
        >>> round(Uniform(1.0, 3.0).draw(np.random.default_rng(0)), 2)
        2.27
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        check_real("low", self.low, zero_allowed=True, remedy="Give the least.")
        check_real("high", self.high, zero_allowed=True, remedy="Give the most.")
        if self.high < self.low:
            raise ValueError(f"high={self.high} is below low={self.low}. Exchange them.")

    def draw(self, generator: np.random.Generator) -> float:
        """Draw the quantity of one worker."""
        return float(generator.uniform(self.low, self.high))


def check_quantity(name: str, quantity: object, *, zero_allowed: bool, infinite: bool = False) -> None:
    """Refuse what is no quantity.

    Args:
        name: Name of the argument, for the message.
        quantity: What the caller gave.
        zero_allowed: Whether it may be 0.
        infinite: Whether it may be infinite.

    Raises:
        TypeError: It is neither a number, a mapping nor a distribution.
        ValueError: A number is out of range.
    """
    if isinstance(quantity, Distribution):
        return
    for value in quantity.values() if isinstance(quantity, Mapping) else (quantity,):
        if infinite and isinstance(value, float) and isinf(value) and value > 0:
            continue
        remedy = (
            "Give a number, a mapping from names to numbers, or a distribution such as LogNormal(1.0, 0.5)."
        )
        check_real(name, value, zero_allowed=zero_allowed, remedy=remedy)


def quantity_of(quantity: Quantity, name: str, worker: str, seed: int) -> float:
    """Return a quantity of one worker, as a pure function of what is given.

    Args:
        quantity: What was given.
        name: Which quantity it is.
        worker: Name of the worker.
        seed: Seed of the run.

    Raises:
        ValueError: A mapping does not name the worker.
    """
    if isinstance(quantity, Mapping):
        if worker not in quantity:
            raise ValueError(
                f"{name} names {list(quantity)[:5]}, and not {worker!r}. Give a number for each worker."
            )
        return quantity[worker]
    if isinstance(quantity, Distribution):
        return quantity.draw(np.random.default_rng(derive_seed(seed, "profile", name, worker)))
    return quantity
