from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fedlightning.callbacks.fingerprints import take_fingerprint
from fedlightning.cli.compare import compare


def write(folder: Path, weights: list[float], layers: int = 1) -> Path:
    """Write the fingerprints of a run whose first weight takes these values; the bias stays."""
    folder.mkdir()
    module = nn.Sequential(*(nn.Linear(1, 1) for _ in range(layers)))
    with open(folder / "fingerprint.jsonl", "w") as file:
        for rounds, weight in enumerate(weights):
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.fill_(weight if parameter.dim() == 2 else 0.0)
            file.write(take_fingerprint(module, rounds).as_line())
    return folder


def test_runs_of_the_same_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = write(tmp_path / "a", [0.0, 1.0, 2.0]), write(tmp_path / "b", [0.0, 1.0, 2.0])
    assert compare(left, right) == 0
    assert compare(left / "fingerprint.jsonl", right) == 0
    printed = capsys.readouterr().out
    assert "The same bits before the first round to after round 1: 3 fingerprints.\n" in printed


def test_the_first_round_and_tensor_that_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = write(tmp_path / "a", [0.0, 1.0, 2.0, 3.0]), write(tmp_path / "b", [0.0, 1.0, 2.5, 9.0])
    assert compare(left, right) == 1
    assert capsys.readouterr().out == "They differ after round 1: 0.weight (1 of 2 tensors).\n"


def test_many_tensors_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = write(tmp_path / "a", [0.0], layers=7), write(tmp_path / "b", [1.0], layers=7)
    assert compare(left, right) == 1
    printed = capsys.readouterr().out
    assert "before the first round: 0.weight, 1.weight, 2.weight, 3.weight, 4.weight and 2 more" in printed


def test_a_run_that_ends_early_is_no_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = write(tmp_path / "a", [0.0, 1.0, 2.0]), write(tmp_path / "b", [0.0, 1.0])
    assert compare(left, right) == 1
    assert f"But {right} ends there, and the other goes on after round 1." in capsys.readouterr().out


def test_a_run_that_was_resumed_elsewhere_is_compared_from_there(tmp_path: Path) -> None:
    left, right = write(tmp_path / "a", [0.0, 1.0, 2.0]), write(tmp_path / "b", [0.0, 1.0, 2.0])
    file = right / "fingerprint.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    assert compare(left, right) == 0


def test_nothing_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = write(tmp_path / "a", [0.0])
    (tmp_path / "empty").mkdir()
    assert compare(left, tmp_path / "empty") == 2
    assert "train with fingerprint=true to write one" in capsys.readouterr().err
    assert compare(left, tmp_path / "nowhere") == 2
    assert "nowhere" in capsys.readouterr().err
    (tmp_path / "other.jsonl").write_text("")
    assert compare(left, tmp_path / "other.jsonl") == 2
    assert "no round in common" in capsys.readouterr().err
