from __future__ import annotations

from typing import Any

import pytest

from fedlightning.callbacks import FederatedProgressBar, FederatedRichProgressBar
from tests.callbacks.conftest import Fit, bob_and_alice

BARS = [FederatedProgressBar, FederatedRichProgressBar]


@pytest.mark.parametrize("bar", BARS)
def test_the_bar_shows_round_workers_and_loss(bar: Any, fit: Fit) -> None:
    progress = bar()
    trainer = fit(progress, enable_progress_bar=True)
    items = progress.get_metrics(trainer, trainer.lightning_module)
    loss = trainer.strategy.history[-1].loss
    assert list(items.items())[:3] == [("round", "3"), ("workers", "alice bob"), ("loss", loss)]


@pytest.mark.parametrize("bar", BARS)
def test_within_a_round_it_shows_who_trains(bar: Any, fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedlightning.callbacks.progress._SECONDS_BETWEEN_VISITS_SHOWN", -1)
    shown: list[Any] = []

    class Watched(bar):  # type: ignore[misc]  # a class that is a parameter
        def _redraw(self, items: Any) -> None:
            super()._redraw(items)
            shown.append(items)

    trainer = fit(Watched(), enable_progress_bar=True)
    assert [(items["round"], items["workers"]) for items in shown[-2:]] == [
        ("3", "alice (1/2)"),
        ("3", "bob (2/2)"),
    ]
    assert shown[-1]["loss"] == trainer.strategy.history[-2].loss, "the last round that has one"


def test_the_terminal_shows_them(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    fit(FederatedProgressBar(), enable_progress_bar=True)
    shown = capsys.readouterr()
    for text in ("round=3", "workers=alice bob", "loss="):
        assert text in shown.out + shown.err


@pytest.mark.parametrize("bar", BARS)
def test_before_the_first_round_and_without_a_federation_the_bar_is_lightnings(bar: Any, fit: Fit) -> None:
    for strategy in (bob_and_alice(), "auto"):
        progress = bar()
        trainer = fit(progress, strategy=strategy, enable_progress_bar=True, max_epochs=0)
        assert "round" not in progress.get_metrics(trainer, trainer.lightning_module)


def test_a_disabled_bar_stays_silent(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedlightning.callbacks.progress._SECONDS_BETWEEN_VISITS_SHOWN", -1)
    fit(FederatedProgressBar(refresh_rate=0), enable_progress_bar=True)


def test_the_part_of_lightnings_rich_bar_that_is_used() -> None:
    assert hasattr(FederatedRichProgressBar(), "_metric_component")
