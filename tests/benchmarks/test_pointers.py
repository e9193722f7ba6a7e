"""The pointer benchmark measures everything that it lists; what is counted rather than timed must hold."""

from __future__ import annotations

import sys

import pytest

from benchmarks import pointers


def test_every_row_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["pointers", "--quick"])
    pointers.main()
    table = capsys.readouterr().out
    for what in (
        "resident memory",
        "x + y, 2 elements",
        "CNN step, op by op",
        "process: CNN step",
        "state dict",
    ):
        assert what in table
    counted = [line for line in table.splitlines() if "messages" in line or "objects gained at" in line]
    assert len(counted) == 3
    assert all(line.endswith("met") for line in counted)
