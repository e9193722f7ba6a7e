"""One table of what was measured, what was aimed at, and whether it was met."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from benchmarks.measuring import Spread

_HEADER = ("what", "measured", "from .. to", "target", "verdict")


@dataclass(frozen=True)
class Row:
    """Hold one measurement beside its target.

    Args:
        what: What was measured.
        spread: The measurements.
        unit: Of the numbers: ``x`` for ratios, ``messages``, ``us``, ``MB/s``, ``MB``, ``objects``.
        target: The bound; None for a number that is only reported.
        bound: Whether the target is the most (``<=``) or the least (``>=``) that it may be.
    """

    what: str
    spread: Spread
    unit: str
    target: float | None = None
    bound: Literal["<=", ">="] = "<="

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or nothing where there is no target."""
        if self.target is None:
            return ""
        value = self.spread.middle
        return "met" if (value <= self.target if self.bound == "<=" else value >= self.target) else "missed"

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text, in the table's order."""
        target = "" if self.target is None else f"{self.bound} {_number(self.target)}"
        span = f"{_number(self.spread.low)} .. {_number(self.spread.high)}"
        return (self.what, f"{_number(self.spread.middle)} {self.unit}", span, target, self.verdict)


def exactly(value: float) -> Spread:
    """Make a spread of something that is counted, not timed."""
    return Spread(value, value, value)


def render(rows: Iterable[Row]) -> str:
    """Return the table as text, a line per row under a header."""
    lines = [_HEADER, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
