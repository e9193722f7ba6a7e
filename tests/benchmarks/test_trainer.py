"""The benchmark of the strategy's overhead runs, and measures every way at every size."""

from __future__ import annotations

import sys

import pytest

from benchmarks import trainer


def test_every_row_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["trainer", "--quick"])
    monkeypatch.setattr(trainer, "QUICK", trainer.Effort(1, 0.0, 1, 1))
    monkeypatch.setattr(trainer, "QUICK_STEPS", 2)
    trainer.main()
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 1 + 2 * len(trainer.WAYS)
    assert all(" x " in row for row in rows[1:])
