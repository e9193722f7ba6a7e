"""Draw a report's pictures: labels at the workers, metrics over rounds with their spread, bytes moved."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from fedlightning.data.plots import MAX_NAMED_WORKERS, plot_label_bars, plot_label_heatmap, plot_sizes
from fedlightning.strategy import History, WorkerSummary
from fedlightning.strategy.curves import draw_bytes, draw_metric, metric_families

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 9.6
_INKS = {"light": "#1f2430", "dark": "#d8dce6"}


@dataclass(frozen=True)
class Picture:
    """One picture, as addresses that hold the picture itself.

    Args:
        light: To be shown on a light page.
        dark: To be shown on a dark one.
        caption: What it shows.
    """

    light: str
    dark: str
    caption: str


def picture_of_workers(workers: Sequence[WorkerSummary]) -> Picture | None:
    """Draw the labels at each worker, or its samples where there are no labels."""
    if not workers:
        return None
    return _drawn(lambda: _workers(workers), "What lies at each worker.")


def picture_of_metrics(history: History) -> Picture | None:
    """Draw every metric over rounds, those of one kind (``train/acc``, ``val/acc``) together."""
    families = metric_families(history)
    if not families:
        return None
    caption = (
        "Metrics over rounds. The band lies between the workers that do worst and best in training; "
        f"with more than {MAX_NAMED_WORKERS} in a round, it is one standard deviation to both sides."
    )
    return _drawn(lambda: _metrics(history, families), caption)


def picture_of_bytes(history: History) -> Picture | None:
    """Draw the bytes moved so far, over rounds."""
    if not history:
        return None
    return _drawn(lambda: _bytes(history), "Megabytes moved since the run began.")


def _workers(workers: Sequence[WorkerSummary]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    counts = {worker.worker: worker.label_counts for worker in workers}
    if not any(counts.values()):
        plot_sizes({worker.worker: {"": worker.samples} for worker in workers}, axes)
    elif len(workers) <= MAX_NAMED_WORKERS:
        plot_label_bars(counts, axes)
    else:
        plot_label_heatmap(counts, axes)
    return figure


def _metrics(history: History, families: Mapping[str, Sequence[str]]) -> Figure:
    from matplotlib.figure import Figure

    columns = min(len(families), 2)
    rows = -(-len(families) // columns)
    figure = Figure(figsize=(_WIDTH, 3.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, (family, names) in zip(panels, families.items(), strict=False):
        draw_metric(panel, history, names, family)
    for panel in panels[len(families) :]:
        panel.remove()
    return figure


def _bytes(history: History) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, 2.4), layout="constrained")
    draw_bytes(figure.subplots(), history)
    return figure


def _drawn(draw: Callable[[], Figure], caption: str) -> Picture:
    addresses = {}
    for scheme, ink in _INKS.items():
        with _in_ink(ink):
            addresses[scheme] = _address(draw())
    return Picture(addresses["light"], addresses["dark"], caption)


@contextmanager
def _in_ink(ink: str) -> Iterator[None]:
    """Draw with one colour for text and lines, on nothing."""
    from matplotlib import rc_context

    settings: dict[Any, Any] = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.facecolor": "none",
        "legend.frameon": False,
        "svg.hashsalt": "fedlightning",  # the same picture, the same file
    }
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings.update(dict.fromkeys(inked, ink))
    with rc_context(settings):
        yield


def _address(figure: Figure) -> str:
    file = BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + b64encode(file.getvalue()).decode()
