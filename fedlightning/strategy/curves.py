"""Draw a history: metrics over rounds with the spread over workers, and bytes. `history` calls it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fedlightning.strategy.history import History

Points: TypeAlias = dict[int, float]
"""A curve: values by the number of rounds that were trained when they were measured."""

_MB = 1e6


def plot_history(history: History, names: Sequence[str], ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw metrics over rounds.

    Args:
        history: The run.
        names: Metrics to draw; of none, ``loss`` is drawn.
        ax: Where to draw; None makes a new figure.

    Returns:
        The figure and its axes.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: The history has no metric of a name.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Plots need matplotlib: pip install 'fedlightning[examples]'.") from error
    # Not through pyplot, which would keep every figure alive and choose a window system.
    axes = Figure(figsize=(7, 3.6), layout="constrained").subplots() if ax is None else ax
    names = names or ("loss",)
    known = _known(history)
    for name in names:
        if name not in known:
            raise ValueError(f"the history has no metric {name!r}. There are: {', '.join(known)}.")
    draw_metric(axes, history, names, names[0] if len(names) == 1 else "")
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes always belong to a figure"
    return figure, axes


def metric_families(history: History) -> dict[str, list[str]]:
    """Sort the metrics by what they measure, which is the last part of their name.

    Returns:
        For example ``{"acc": ["train/acc", "val/acc"], "loss": ["train/loss", "val/loss"]}``. The plain
        ``loss`` is left out where the module logs a loss of its own.
    """
    families: dict[str, list[str]] = {}
    for name in _known(history):
        families.setdefault(name.rpartition("/")[2], []).append(name)
    if len(families.get("loss", [])) > 1:
        families["loss"].remove("loss")
    return dict(sorted(families.items()))


def draw_metric(axes: Axes, history: History, names: Iterable[str], title: str) -> None:
    """Draw some metrics over rounds, and of those at workers the band between the worst and the best.

    Args:
        axes: Where to draw.
        history: The run.
        names: The metrics.
        title: What stands above.
    """
    for number, name in enumerate(names):
        colour = f"C{number}"
        points, band = _points(history, name), _band(history, name)
        if points:
            axes.plot(list(points), list(points.values()), color=colour, marker=".", markersize=4, label=name)
        if band:
            low, high = ([pair[side] for pair in band.values()] for side in (0, 1))
            label = None if points else f"{name}, over workers"
            axes.fill_between(list(band), low, high, color=colour, alpha=0.18, linewidth=0, label=label)
    _finish(axes, title)


def draw_bytes(axes: Axes, history: History) -> None:
    """Draw the megabytes that were moved so far, up and down.

    Args:
        axes: Where to draw.
        history: The run.
    """
    for label, sizes in (
        ("up: left the workers", [record.bytes_up for record in history]),
        ("down: sent to the workers", [record.bytes_down for record in history]),
    ):
        total, curve = 0, []
        for size in sizes:
            total += size
            curve.append(total / _MB)
        style = "-" if label.startswith("up") else "--"
        axes.plot([record.round + 1 for record in history], curve, linestyle=style, label=label)
    axes.set_ylim(bottom=0)
    _finish(axes, "MB moved")


def _finish(axes: Axes, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title)
    axes.set_xlabel("rounds")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25, linewidth=0.6)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _known(history: History) -> list[str]:
    """Name every metric that the history has."""
    names = dict.fromkeys(name for record in history for name in record.metrics)
    names |= dict.fromkeys(name for visit in history.visits for name in visit.metrics)
    names |= dict.fromkeys(name for evaluation in history.evaluations for name in evaluation.metrics)
    has_loss = any(record.loss is not None for record in history)
    return [*names, *(["loss"] if has_loss and "loss" not in names else [])]


def _points(history: History, name: str) -> Points:
    points = {record.round + 1: record.metrics[name] for record in history if name in record.metrics}
    if name == "loss" and not points:
        points = {record.round + 1: record.loss for record in history if record.loss is not None}
    return points | {e.rounds: e.metrics[name] for e in history.evaluations if name in e.metrics}


def _band(history: History, name: str) -> Mapping[int, tuple[float, float]]:
    """Return how far the workers were apart: lowest and highest, or one deviation to both sides.

    The second is for rounds with cohorts of which the history keeps no visits.
    """
    band: dict[int, tuple[float, float]] = {}
    for record in history:
        value = record.metrics.get(name, record.loss if name == "loss" else None)
        deviation = record.spread.get(f"{name}_std")
        if value is not None and deviation is not None:
            band[record.round + 1] = (value - deviation, value + deviation)
    values: dict[int, list[float]] = {}
    for visit in history.visits:
        metrics = {"loss": visit.loss, **visit.metrics}
        if (own := metrics.get(name)) is not None:
            values.setdefault(visit.round + 1, []).append(own)
    band |= {rounds: (min(own), max(own)) for rounds, own in values.items() if len(own) > 1}
    for evaluation in history.evaluations:
        if (lowest := evaluation.spread.get(f"{name}_min")) is not None:
            band[evaluation.rounds] = (lowest, lowest + evaluation.spread[f"{name}_gap"])
    return band
