from __future__ import annotations

import pytest

from fedlightning.callbacks import FederationTable, table
from fedlightning.callbacks.report import Report
from tests.callbacks.reporting import ReportingStrategy

PLAIN = """\
worker  samples  labels  val/acc    sent  received
bob           6  █▄       0.5000    2 kB      1 kB
alice         4  ·█       0.7500    2 kB      1 kB
global       10  ▆█       4.0000    4 kB      2 kB
"""


def without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "find_spec", lambda name: None)


def test_prints_aligned_text_where_rich_is_missing(fit, capsys, monkeypatch) -> None:
    without_rich(monkeypatch)
    fit(FederationTable(), ReportingStrategy())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[-4:]] == [line.split() for line in PLAIN.splitlines()]
    ends = {
        line.rindex(cell) + len(cell)
        for line, cell in zip(lines[-4:], ("val/acc", "0.5000", "0.7500", "4.0000"), strict=True)
    }
    assert len(ends) == 1, "numbers must end in the same column"


def test_prints_a_rich_table(fit, capsys) -> None:
    fit(FederationTable(), ReportingStrategy())
    printed = capsys.readouterr().out
    assert "The federation" in printed
    for cell in ("bob", "alice", "0.7500", "4.0000", "█▄"):
        assert cell in printed


def test_prints_no_more_rows_than_asked_for(fit, capsys, monkeypatch) -> None:
    without_rich(monkeypatch)
    fit(FederationTable(max_workers=1), ReportingStrategy())
    printed = capsys.readouterr().out
    assert "alice" not in printed
    assert printed.endswith("... and 1 more workers\n")
    assert "global       10" in printed


def test_says_nothing_without_a_federation(fit, capsys) -> None:
    fit(FederationTable(), "auto")
    assert "worker" not in capsys.readouterr().out


def test_no_rows_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="max_workers must be at least 1; got 0"):
        FederationTable(max_workers=0)


def test_an_empty_federation_prints_head_and_foot(capsys, monkeypatch) -> None:
    without_rich(monkeypatch)
    table.print_report(Report(("worker", "samples"), (), ("global", "0")), max_workers=5)
    assert capsys.readouterr().out == "worker  samples\nglobal        0\n"
