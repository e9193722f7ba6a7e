"""Tables as text and as Markdown, and the page in which they stand."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from matplotlib import rc_context

from benchmarks.published.study import CLAIMS_HEADER, Report, Table


def as_text(table: Table) -> str:
    """Return a table for a terminal."""
    lines = [table.header, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.header))]
    padded = ("  ".join(map(str.ljust, line, widths)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def as_markdown(table: Table) -> str:
    """Return a table for a page."""
    rule = ("---",) * len(table.header)
    return "\n".join(f"| {' | '.join(line)} |" for line in (table.header, rule, *table.rows))


def write(reports: Mapping[str, Report], docs: Path) -> None:
    """Put what was measured into the page: tables between their marks, figures and values beside it.

    Args:
        reports: By the name of their study.
        docs: The folder of the documentation.
    """
    page = docs / "published.md"
    text = page.read_text(encoding="utf-8")
    folder = docs / "published"
    folder.mkdir(exist_ok=True)
    for name, report in reports.items():
        claims = Table(CLAIMS_HEADER, [claim.cells for claim in report.claims])
        text = between(text, f"{name}: claims", as_markdown(claims))
        text = between(text, f"{name}: details", as_markdown(report.details))
        # No date, and no random names: the same runs make the same file.
        with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
            report.figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([report.values.header, *report.values.rows])
    page.write_text(text, encoding="utf-8")


def between(text: str, mark: str, content: str) -> str:
    """Return the text with something else between ``<!-- mark -->`` and ``<!-- end of mark -->``.

    Raises:
        ValueError: The text lacks the marks.
    """
    opening, closing = f"<!-- {mark} -->\n", f"\n<!-- end of {mark} -->"
    pattern = re.compile(f"{re.escape(opening)}.*?{re.escape(closing)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the page has no place for {mark!r}: give it {opening!r} and {closing!r}.")
    return pattern.sub(lambda _: f"{opening}{content}{closing}", text)
