from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fedlightning.data import Dirichlet, Natural
from fedlightning.data.plots import count_labels, plot_label_bars, plot_label_heatmap, plot_sizes

COUNTS = {"bob": {0: 3, 1: 1}, "alice": {1: 2, 2: 5}}
PLOTS = [plot_label_bars, plot_label_heatmap, plot_sizes]


def test_counts_cover_every_class_and_sample() -> None:
    labels = np.arange(60) % 3
    counts = count_labels(labels, Dirichlet(0.5, labels=labels).split(labels, 4), labels)
    assert list(counts) == ["0", "1", "2", "3"]
    assert {label: sum(own[label] for own in counts.values()) for label in range(3)} == {0: 20, 1: 20, 2: 20}


def test_counts_carry_the_workers_names() -> None:
    labels = np.array([0, 1, 1])
    assert count_labels(labels, Natural(["x", "y", "x"]).split(labels), labels) == {
        "x": {0: 1, 1: 1},
        "y": {0: 0, 1: 1},
    }


def bars_in(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def test_bars_are_stacked_up_to_the_workers_size() -> None:
    _, axes = plot_label_bars(COUNTS)
    tops = {round(bar.get_x() + bar.get_width() / 2): 0.0 for bar in bars_in(axes)}
    for bar in bars_in(axes):
        worker = round(bar.get_x() + bar.get_width() / 2)
        tops[worker] = max(tops[worker], bar.get_y() + bar.get_height())
    assert tops == {0: 4.0, 1: 7.0}
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["2", "1", "0"]


def test_heat_map_shows_shares_and_numbers() -> None:
    _, axes = plot_label_heatmap(COUNTS)
    assert np.allclose(np.asarray(axes.images[0].get_array()), [[0.75, 0.25, 0.0], [0.0, 2 / 7, 5 / 7]])
    assert [text.get_text() for text in axes.texts] == ["3", "1", "0", "0", "2", "5"]


def test_sizes_are_sums() -> None:
    _, axes = plot_sizes(COUNTS)
    assert [bar.get_height() for bar in bars_in(axes)] == [4, 7]


@pytest.mark.parametrize("plot", PLOTS)
def test_draws_into_given_axes(plot: Callable[..., Any]) -> None:
    figure = Figure()
    axes = figure.subplots()
    assert plot(COUNTS, ax=axes) == (figure, axes)


@pytest.mark.parametrize("plot", PLOTS)
def test_many_workers_are_not_named(plot: Callable[..., Any]) -> None:
    figure, axes = plot({f"worker-{number}": {0: number + 1} for number in range(50)})
    figure.canvas.draw()
    assert "worker-7" not in [tick.get_text() for tick in [*axes.get_xticklabels(), *axes.get_yticklabels()]]


@pytest.mark.parametrize("plot", PLOTS)
def test_refuses_nothing(plot: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="counts is empty"):
        plot({})


def test_says_how_to_get_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fedlightning\[examples\]'"):
        plot_sizes(COUNTS)


def test_the_legend_of_equal_sizes_does_not_lie_over_the_bars() -> None:
    figure, axes = plot_sizes({str(number): {0: 7} for number in range(10)})
    figure.draw_without_rendering()
    legend = axes.get_legend()
    assert legend is not None
    assert not any(legend.get_window_extent().overlaps(bar.get_window_extent()) for bar in axes.patches)
