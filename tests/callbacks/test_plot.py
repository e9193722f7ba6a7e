from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from matplotlib.image import imread

from fedlightning.callbacks import FederationPlot
from fedlightning.callbacks.plot import draw_federation
from tests.callbacks.reporting import ReportingStrategy


def test_writes_a_picture_of_the_rounds_validated(fit, tmp_path: Path) -> None:
    plot = FederationPlot(tmp_path / "new" / "federation.png")
    fit(plot, ReportingStrategy())
    assert (plot.rounds, plot.values) == ([2, 4], [2.0, 4.0])
    height, width, _ = imread(plot.path).shape
    assert (height, width) == (600, 1800)


def test_draws_what_was_reported() -> None:
    workers = ReportingStrategy().federation_summary()
    figure = draw_federation(workers, [1, 2], [0.5, 0.75], "val/acc")
    labels, metric = figure.axes
    assert sum(bar.get_height() for bar in labels.patches) == 10
    assert [text.get_text() for text in labels.get_xticklabels()] == ["bob", "alice"]
    assert metric.lines[0].get_xydata().tolist() == [[1, 0.5], [2, 0.75]]


def test_without_labels_the_samples_are_drawn() -> None:
    workers = [replace(worker, label_counts={}) for worker in ReportingStrategy().federation_summary()]
    samples, _ = draw_federation(workers, [], [], "val/loss").axes
    assert [bar.get_height() for bar in samples.patches] == [6, 4]


def test_a_resumed_run_goes_on_with_the_curve() -> None:
    before = FederationPlot()
    before.rounds, before.values = [1], [0.5]
    after = FederationPlot()
    after.load_state_dict(before.state_dict())
    assert (after.rounds, after.values) == ([1], [0.5])


def test_draws_nothing_without_a_federation(fit, tmp_path: Path) -> None:
    fit(FederationPlot(tmp_path / "federation.png"), "auto")
    assert not (tmp_path / "federation.png").exists()
