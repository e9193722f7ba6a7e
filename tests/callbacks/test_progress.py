from __future__ import annotations

import pytest

from fedlightning.callbacks import FederatedProgressBar, FederatedRichProgressBar
from tests.callbacks.reporting import ReportingStrategy


@pytest.mark.parametrize("bar", [FederatedProgressBar, FederatedRichProgressBar])
def test_the_bar_shows_round_and_workers(bar, fit) -> None:
    progress = bar()
    trainer = fit(progress, ReportingStrategy(), enable_progress_bar=True)
    items = progress.get_metrics(trainer, trainer.lightning_module)
    assert list(items.items())[:2] == [("round", 7), ("workers", "bob alice")]


def test_the_terminal_shows_them(fit, capsys) -> None:
    fit(FederatedProgressBar(), ReportingStrategy(), enable_progress_bar=True)
    shown = capsys.readouterr()
    assert "round=7" in shown.out + shown.err
    assert "workers=bob alice" in shown.out + shown.err


def test_before_the_first_round_and_without_a_federation_the_bar_is_lightnings(fit) -> None:
    strategy = ReportingStrategy()
    strategy.current_plan = None
    for chosen in (strategy, "auto"):
        progress = FederatedProgressBar()
        trainer = fit(progress, chosen, enable_progress_bar=True)
        assert "round" not in progress.get_metrics(trainer, trainer.lightning_module)
