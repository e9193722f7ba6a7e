"""Run a tutorial's cells as a notebook would. What a tutorial should show is for the tests to say."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Cell:
    code: str
    shown: str


def read_cells(name: str) -> list[Cell]:
    """Read a file of cells, each ``In:`` followed by code and perhaps ``Out:`` with what is displayed."""
    text = (HERE / name).read_text(encoding="utf-8")
    parts = [part.partition("Out:\n") for part in re.split(r"^In:\n", text, flags=re.MULTILINE) if part]
    return [Cell(code, shown) for code, _, shown in parts]


def run_cell(code: str, namespace: dict[str, Any]) -> str:
    """Run one cell and return what a notebook displays: what it prints, then its last expression's value."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), namespace)
        value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace) if last else None
    if value is not None:
        # A notebook keeps what it displays, and with it the objects that it points to.
        namespace.setdefault("Out", []).append(value)
        print(repr(value), file=printed)
    return printed.getvalue()


def with_numbered_ids(text: str, seen: dict[str, str]) -> str:
    """Replace the random identifiers by their order of appearance, and runs of blanks by one."""
    numbered = re.sub(r"\b\d{10,}\b", lambda match: seen.setdefault(match[0], f"#{len(seen)}"), text)
    return " ".join(numbered.split())
