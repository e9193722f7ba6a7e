"""The scripts under `examples/` run as their first lines say."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# Each script with what makes it short, and what it prints at the least.
SCRIPTS = {
    "federated_digits.py": (["--epochs", "2"], ["central", "averaged", "sequential"]),
    "gradient_leakage.py": ([], ["average of 50, search", "drawn side by side in gradient_leakage.png"]),
    "pointers.py": ([], ["<VirtualWorker id:bob", "y = 2.00 x + 1.00"]),
    "remote_execution.py": ([], ["we point to alice"]),
    "trusted_aggregator.py": (
        [],
        ["accuracy of the average: 0.9", "a single model: worker 'aggregator' refuses", "aggregate over 3"],
    ),
}


@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_a_script_runs(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = SCRIPTS[script]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    printed = capsys.readouterr().out
    for text in expected:
        assert text in printed


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_a_script_is_short_and_names_its_command(script: str) -> None:
    text = (EXAMPLES / script).read_text()
    assert len(text.splitlines()) < 90
    assert f"python examples/{script}" in text
