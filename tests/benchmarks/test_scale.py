"""The benchmark of scale runs, and measures every row."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from benchmarks import scale


def test_every_row_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["scale", "--quick"])
    # In this process, which has imported all that it takes seconds to import.
    monkeypatch.setattr(scale, "_alone", lambda measure, *args: measure(*args))
    small = scale.Effort(200, 20, 3, 2, scale.QUICK.works)
    monkeypatch.setattr(scale, "QUICK", small)
    scale.main()
    rows: list[Any] = capsys.readouterr().out.splitlines()
    assert len(rows) == 1 + 2 + 2 * 3 + 2 * 2
    assert [row.split("  ")[0] for row in rows[1:4]] == [
        "start-up of 200 workers, per 100,000",
        "a checkpoint of 200 workers, after its first",
        "a round of 10 out of 200 beside one out of 20, one by one",
    ]
