"""Checks of settings that several constructors of the data layer share. Nothing but refusals lives here."""

from __future__ import annotations

import math


def check_count(argument: str, value: object, *, minimum: int = 1) -> None:
    """Refuse anything that is not an integer of at least ``minimum``.

    Args:
        argument: Name of the argument, for the message.
        value: What the caller gave.
        minimum: Smallest allowed value.

    Raises:
        TypeError: If the value is no integer.
        ValueError: If it is too small.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{argument}={value!r} must be an integer, got {type(value).__name__}.")
    if value < minimum:
        raise ValueError(f"{argument}={value} must be at least {minimum}.")


def check_real(argument: str, value: object, *, zero_allowed: bool, remedy: str) -> None:
    """Refuse anything that is not a finite number above (or at) zero.

    Args:
        argument: Name of the argument, for the message.
        value: What the caller gave.
        zero_allowed: Whether 0 itself is valid.
        remedy: What to do instead, as a sentence.

    Raises:
        TypeError: If the value is no real number.
        ValueError: If it is negative, NaN or infinite, or 0 where that is not valid.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{argument}={value!r} must be a number, got {type(value).__name__}.")
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero_allowed):
        sign = "non-negative" if zero_allowed else "positive"
        raise ValueError(f"{argument}={value} must be a {sign} finite number. {remedy}")
