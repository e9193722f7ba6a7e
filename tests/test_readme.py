"""Every command and every Python block of the README does what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fedlightning.cli.job import run
from tests.configs.composing import composing

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


COMMANDS = [shlex.split(line, comments=True) for block in blocks("bash") for line in block.splitlines()]
TRAINING = [command[1:] for command in COMMANDS if command[0] == "fedlightning-train"]


@pytest.mark.parametrize("block", blocks("python"), ids=["trainer", "pointers", "process"])
def test_a_python_block_runs(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block.replace("max_epochs=20", "max_epochs=2"), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    for expected in re.findall(r"print\(.*\)\s+# (.*)", block):
        assert expected in printed


def test_every_command_is_make_or_ours() -> None:
    assert {command[0] for command in COMMANDS} == {"make", "fedlightning-train"}
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {command[1] for command in COMMANDS if command[0] == "make"} <= set(targets)


@pytest.mark.parametrize("arguments", TRAINING, ids=" ".join)
def test_a_training_command_runs(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with composing(tmp_path) as composed:
        run(composed(*arguments, "trainer.max_epochs=1"))
    printed = capsys.readouterr().out
    assert "test/acc" in printed
    assert printed.endswith(f"are in {tmp_path}\n")
