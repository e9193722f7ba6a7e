"""A table on a page under ``docs/`` that fits write, a row at a time, and that a test holds them to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
START, END = "<!-- matrix -->", "<!-- end of matrix -->"


def line(cells: Iterable[str]) -> str:
    """Return a line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def refusal(error: Exception) -> str:
    """Return what a cell says of a fit that was refused: the reason, without the remedy."""
    reason = str(error).removeprefix("FederatedStrategy cannot run this fit:\n- ").split(". ")[0]
    return f"refused: {reason.rstrip('.')}"


@dataclass(frozen=True)
class CommittedTable:
    """The table of a page.

    Args:
        page: Name of the page.
        heads: What stands above its columns.
        row: Returns the cells of a row, given its name.
    """

    page: str
    heads: Sequence[str]
    row: Callable[[str], Sequence[str]]

    def rows(self) -> list[str]:
        """Return the committed lines, heads and rule included."""
        return self._around()[1].strip().splitlines()

    def holds(self, name: str) -> bool:
        """Tell whether fits give the committed row."""
        return line(self.row(name)) in self.rows()

    def write(self, names: Iterable[str]) -> None:
        """Fit for every cell, and put the table on the page."""
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        lines = [line(self.heads), "|---" * len(self.heads) + "|", *(line(self.row(name)) for name in names)]
        before, _, after = self._around()
        table = "\n".join(lines)
        (DOCS / self.page).write_text(f"{before}{START}\n{table}\n{END}{after}")

    def _around(self) -> tuple[str, str, str]:
        before, rest = (DOCS / self.page).read_text().split(START)
        table, after = rest.split(END)
        return before, table, after
