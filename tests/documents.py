"""Read README.md and the pages under docs/ as programs: their blocks in order, in one namespace per page.

- ``python`` blocks are executed. What a block prints is held against the ``text`` block that follows it
  directly, if there is one, and against comments of the form ``print(...)  # expected``.
- ``pycon`` blocks are doctests.
- ``bash`` blocks hold commands, one a line.

Three dots stand for anything, as in doctests. ``max_epochs`` of ten and more become 2 when executed.
"""

from __future__ import annotations

import doctest
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """Hold a fenced block of a page: its language, its code, the line it starts at, and the text after it."""

    language: str
    code: str
    line: int
    output: str | None


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    text = page.read_text()
    for match in re.finditer(r"^```(\w+).*?\n(.*?)^```\n", text, re.DOTALL | re.MULTILINE):
        output = re.match(r"\n```text\n(.*?)^```\n", text[match.end() :], re.DOTALL | re.MULTILINE)
        line = text.count("\n", 0, match.start(2))
        yield Block(match[1], match[2], line, output[1] if output else None)


def commands() -> list[list[str]]:
    """Return the commands of all pages, each once, split into words."""
    shown = (block.code for page in PAGES for block in blocks(page) if block.language == "bash")
    lines = (line for code in shown for line in code.splitlines())
    return [list(words) for words in dict.fromkeys(tuple(shlex.split(line, comments=True)) for line in lines)]


def execute(page: Path) -> None:
    """Execute the Python of a page.

    Raises:
        AssertionError: Something else is printed than the page says.
    """
    namespace: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page):
        if block.language == "python":
            _run(block, page, namespace)
        elif block.language == "pycon":
            _examine(block, page, namespace)


def _run(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    code = re.sub(r"max_epochs=\d\d+", "max_epochs=2", block.code)
    printed = StringIO()
    with redirect_stdout(printed):
        # The empty lines make tracebacks name the line of the page.
        exec(compile("\n" * block.line + code, str(page), "exec", dont_inherit=True), namespace)
    for expected in re.findall(r"print\(.*\)\s+# (.*)", block.code):
        assert _is_in(expected, printed.getvalue()), f"{expected!r} is not in {printed.getvalue()!r}"
    if block.output is not None:
        said, shown = printed.getvalue(), block.output
        assert doctest.OutputChecker().check_output(shown, said, FLAGS), (
            f"{page}:{block.line}: printed\n{said}"
        )


def _examine(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    test = doctest.DocTestParser().get_doctest(block.code, namespace, page.name, str(page), block.line)
    test.globs = namespace  # not a copy: later blocks go on from here
    report = StringIO()
    doctest.DocTestRunner(verbose=False, optionflags=FLAGS).run(test, out=report.write, clear_globs=False)
    assert not report.getvalue(), report.getvalue()


def _is_in(expected: str, printed: str) -> bool:
    parts = map(re.escape, expected.split("..."))
    return re.search(".*".join(parts), printed) is not None
