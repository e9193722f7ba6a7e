"""Write an account as a table: for a terminal, a notebook or a file. What is in it is for `ledger`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from html import escape
from os import PathLike
from typing import Any

_WIDEST = 60


def as_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Set the rows in aligned columns.

    Args:
        columns: Their names, in order.
        rows: One record each.
    """
    cells = [tuple(columns), *(tuple(_cell(row[name]) for name in columns) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(map(str.ljust, line, widths)) for line in cells)
    return "\n".join(line.rstrip() for line in lines)


def as_html(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Set the rows as an HTML table.

    Args:
        columns: Their names, in order.
        rows: One record each.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(row[name]))}</td>" for name in columns) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def write_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], path: str | PathLike[str]) -> None:
    """Write the rows to a file of comma-separated values, in UTF-8.

    Args:
        columns: Their names, in order.
        rows: One record each; None is written as nothing.
        path: Where to; a file there is replaced.
    """
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _cell(value: Any) -> str:
    # Items are named by messages: a line break in one would forge a line of the account.
    text = "-" if value is None else " ".join(str(value).split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."
