"""The benchmark of `self.log` runs, and measures every kind of call."""

from __future__ import annotations

import sys

import pytest

from benchmarks import self_log


def test_every_row_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["self_log", "--quick"])
    monkeypatch.setattr(self_log, "QUICK", self_log.Effort(1, 0.0, 1, 1))
    monkeypatch.setattr(self_log, "CALLS", 2)
    self_log.main()
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 1 + 5
    assert all(" us " in row for row in rows[1:])
