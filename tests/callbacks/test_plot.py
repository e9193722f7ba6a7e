from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from matplotlib.image import imread

from fedlightning.callbacks import FederationPlot
from fedlightning.callbacks.plot import draw_federation
from fedlightning.strategy import WorkerSummary
from tests.callbacks.conftest import Fit

WORKERS = [
    WorkerSummary("bob", 6, {0: 4, 1: 2}, {}, 0, 0),
    WorkerSummary("alice", 4, {1: 4}, {}, 0, 0),
]


def test_writes_a_picture(fit: Fit, tmp_path: Path) -> None:
    plot = FederationPlot(tmp_path / "new" / "federation.png")
    fit(plot)
    height, width, _ = imread(plot.path).shape
    assert (height, width) == (600, 1800)


def test_draws_what_was_reported() -> None:
    figure = draw_federation(WORKERS, [1, 2], [0.5, 0.75], "val/acc")
    labels, metric = figure.axes
    assert sum(bar.get_height() for bar in labels.patches) == 10
    assert [text.get_text() for text in labels.get_xticklabels()] == ["bob", "alice"]
    assert metric.lines[0].get_xydata().tolist() == [[1, 0.5], [2, 0.75]]


def test_without_labels_the_samples_are_drawn() -> None:
    workers = [replace(worker, label_counts={}) for worker in WORKERS]
    samples, _ = draw_federation(workers, [], [], "val/loss").axes
    assert [bar.get_height() for bar in samples.patches] == [6, 4]


def test_draws_nothing_without_a_federation(fit: Fit, tmp_path: Path) -> None:
    fit(FederationPlot(tmp_path / "federation.png"), strategy="auto")
    assert not (tmp_path / "federation.png").exists()
