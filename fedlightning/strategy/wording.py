"""How counts and bytes are written for people, in tables, reprs and reports alike."""

from __future__ import annotations

from collections.abc import Iterable

_BARS = "▁▂▃▄▅▆▇█"
_UNITS = ("B", "kB", "MB", "GB", "TB")


def bars(counts: Iterable[int]) -> str:
    """Draw one bar per count, its height the share of the largest; none at all is a dot.

    Example:
        >>> bars([8, 0, 4, 1])
        '█·▄▁'
    """
    counts = list(counts)
    top = max(counts, default=0)
    return "".join(_BARS[-(-count * len(_BARS) // top) - 1] if count else "·" for count in counts)


def human_bytes(count: int) -> str:
    """Write a number of bytes with three significant digits.

    Example:
        >>> human_bytes(999), human_bytes(19_256), human_bytes(1_500_000)
        ('999 B', '19.3 kB', '1.5 MB')
    """
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}"


def counted(number: int, noun: str) -> str:
    """Write a number with its noun.

    Example:
        >>> counted(1, "round"), counted(2000, "round")
        ('1 round', '2,000 rounds')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
