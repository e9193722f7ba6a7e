from __future__ import annotations

import pytest

from fedlightning.callbacks import FederatedProgressBar, FederationTable, table
from fedlightning.callbacks.layout import TextTable
from tests.callbacks.conftest import Fit

START = """\
The federation
worker  samples  share   labels   data
bob           6  60.0%   █▄·     144 B
alice         4  40.0%   ·▃█      96 B
global       10   100%   █▆▆     240 B
2 workers, a module of 404 B
"""


def without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "find_spec", lambda name: None)


def cells(lines: str) -> list[list[str]]:
    return [line.split() for line in lines.splitlines()]


def test_prints_aligned_text_where_rich_is_missing(fit: Fit, capsys, monkeypatch) -> None:
    without_rich(monkeypatch)
    trainer = fit(FederationTable())
    lines = capsys.readouterr().out.splitlines()
    assert cells("\n".join(lines[:6])) == cells(START)
    title, head, bob, alice, total, caption = lines[-6:]
    assert (title, caption) == ("The federation, trained", "2 workers after 4 rounds")
    assert head.split() == ["worker", "samples", "labels", "val/acc", "val/loss", "sent", "received"]
    assert [line.split()[0] for line in (bob, alice, total)] == ["bob", "alice", "global"]
    assert total.split()[3] == f"{float(trainer.callback_metrics['val/acc']):.4f}"
    assert len({len(line) for line in (head, bob, alice, total)}) == 1, "numbers end in the same column"


def test_prints_rich_tables(fit: Fit, capsys) -> None:
    fit(FederationTable())
    printed = capsys.readouterr().out
    for text in (
        "The federation",
        "2 workers, a module of",
        "60.0%",
        "2 workers after 4 rounds",
        "bob",
        "█▄·",
    ):
        assert text in printed


def test_each_of_both_can_be_left_out(fit: Fit, capsys) -> None:
    fit(FederationTable(start=False))
    assert "share" not in capsys.readouterr().out
    fit(FederationTable(end=False))
    assert "trained" not in capsys.readouterr().out


def test_above_the_limit_quantiles_are_printed(fit: Fit, capsys, monkeypatch) -> None:
    without_rich(monkeypatch)
    fit(FederationTable(max_workers=1))
    printed = capsys.readouterr().out
    assert "alice" not in printed
    assert ["median", "5", "50.0%"] in [line.split()[:3] for line in printed.splitlines()]


def test_says_nothing_without_a_federation(fit: Fit, capsys) -> None:
    fit(FederationTable(), strategy="auto")
    assert "worker" not in capsys.readouterr().out


def test_no_rows_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="max_workers must be at least 1; got 0"):
        FederationTable(max_workers=0)


def test_an_empty_table_has_head_and_foot(monkeypatch) -> None:
    without_rich(monkeypatch)
    text = table.rendered(TextTable(("worker", "samples"), (), ("global", "0")), "Title", "Caption")
    assert text == "Title\nworker  samples\nglobal        0\nCaption"


def test_the_progress_bar_makes_room(fit: Fit, monkeypatch) -> None:
    printed: list[str] = []
    monkeypatch.setattr(FederatedProgressBar, "print", lambda self, text: printed.append(text))
    fit(FederatedProgressBar(), FederationTable(), enable_progress_bar=True)
    assert len(printed) == 1
    assert "60.0%" in printed[0]
