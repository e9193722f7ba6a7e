"""Every command and every block of Python in the README and the documentation does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedlightning.cli.job import run
from fedlightning.cli.main import parser
from tests.configs.composing import composing
from tests.documents import PAGES, ROOT, commands, execute

TRAINING = [command[1:] for command in commands() if command[0] == "fedlightning-train"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    execute(page)


def test_every_command_is_known() -> None:
    assert {command[0] for command in commands()} == {"make", "fedlightning", "fedlightning-train"}
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {command[1] for command in commands() if command[0] == "make"} <= set(targets)


def test_the_subcommands_are_known() -> None:
    for words in commands():
        if words[0] == "fedlightning" and words[1] != "train":
            assert callable(parser().parse_args(words[1:]).run_command)


def test_the_page_of_the_command_line_lists_what_each_group_has() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (`[^|]+`) \|$", page, re.MULTILINE)
    assert len(rows) > 15
    listed = {group: set(re.findall(r"`(\w+)`", options)) for group, options in rows}
    assert listed == {
        group: {file.stem for file in (ROOT / "configs" / group).glob("*.yaml")} for group in listed
    }


def test_every_script_that_is_named_is_there() -> None:
    # That each runs is for tests/examples.
    named = {name for page in PAGES for name in re.findall(r"examples/\w+\.py", page.read_text())}
    assert named
    assert all((ROOT / name).is_file() for name in named)


@pytest.mark.parametrize("arguments", TRAINING, ids=" ".join)
def test_a_training_command_runs(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with composing(tmp_path) as composed:
        run(composed(*arguments, "trainer.max_epochs=1"))
    printed = capsys.readouterr().out
    assert "test/acc" in printed
    assert printed.endswith(f"are in {tmp_path}\n")


def write(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text)
    return page


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1 + 1)  # 2\n```\n",
        "```python\nprint([1, 2])\n```\n\n```text\n[1, ...]\n```\n",
        "```python\nx = 1\n```\n\nand\n\n```pycon\n>>> y = x + 1\n```\n\n```python\nassert y == 2\n```\n",
    ],
)
def test_what_is_right_passes(text: str, tmp_path: Path) -> None:
    execute(write(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1 + 1)  # 3\n```\n",
        "```python\nprint([1, 2])\n```\n\n```text\n[1, 3]\n```\n",
        "```pycon\n>>> 1 + 1\n3\n```\n",
        "```pycon\n>>> 1 / 0\n1\n```\n",
    ],
)
def test_what_is_wrong_fails(text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        execute(write(tmp_path, text))


def test_an_error_names_the_line_of_the_page(tmp_path: Path) -> None:
    page = write(tmp_path, "# Title\n\n```python\nx = 1\nx / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        execute(page)
    assert caught.traceback[-1].lineno + 1 == 5
