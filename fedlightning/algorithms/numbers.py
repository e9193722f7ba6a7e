"""Checks of the numbers that algorithms are set up with."""

from __future__ import annotations

import math


def require_at_least(name: str, value: float, least: float) -> None:
    """Check a setting.

    Args:
        name: Its name.
        value: Its value.
        least: The least that makes sense.

    Raises:
        TypeError: It is no number.
        ValueError: It is less, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of at least {least}, got {value!r}.")
    if not (math.isfinite(value) and value >= least):
        raise ValueError(f"{name} must be at least {least} and finite, got {value!r}.")
