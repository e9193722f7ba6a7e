"""Draw a history: metrics over rounds with the spread over workers, and bytes. `history` calls it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fedlightning.strategy.history import History
    from fedlightning.strategy.records import RoundRecord

Points: TypeAlias = dict[int, float]
"""A curve: values by the number of rounds that were trained when they were measured."""

Over = Literal["rounds", "simulated_seconds", "megabytes"]
"""What metrics are drawn over: rounds, the simulated clock, or what was moved so far in both directions."""

_MB = 1e6


def plot_history(
    history: History, names: Sequence[str], ax: Axes | None = None, over: Over = "rounds"
) -> tuple[Figure, Axes]:
    """Draw metrics over rounds, or over what these have taken.

    Args:
        history: The run.
        names: Metrics to draw; of none, ``loss`` is drawn.
        ax: Where to draw; None makes a new figure.
        over: What the horizontal axis shows.

    Returns:
        The figure and its axes.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: The history has no metric of a name, or ``over`` is something that it cannot tell.
    """
    reached = _reached(history, over)
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import AutoLocator
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Plots need matplotlib: pip install 'fedlightning[examples]'.") from error
    # Not through pyplot, which would keep every figure alive and choose a window system.
    axes = Figure(figsize=(7, 3.6), layout="constrained").subplots() if ax is None else ax
    names = names or ("loss",)
    known = _known(history)
    for name in names:
        if name not in known:
            raise ValueError(f"the history has no metric {name!r}. There are: {', '.join(known)}.")
    draw_metric(axes, history, names, names[0] if len(names) == 1 else "", reached)
    if over != "rounds":
        axes.xaxis.set_major_locator(AutoLocator())
        axes.set_xlabel(_LABELS[over])
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


def draw_metric(
    axes: Axes,
    history: History,
    names: Iterable[str],
    title: str,
    reached: Callable[[int], float] = float,
) -> None:
    """Draw some metrics over rounds, and of those at workers the band between the worst and the best.

    Args:
        axes: Where to draw.
        history: The run.
        names: The metrics.
        title: What stands above.
        reached: Returns where on the horizontal axis a number of rounds is.
    """
    for number, name in enumerate(names):
        colour = f"C{number}"
        points, band = _points(history, name), _band(history, name)
        if points:
            places = [reached(rounds) for rounds in points]
            axes.plot(places, list(points.values()), color=colour, marker=".", markersize=4, label=name)
        if band:
            low, high = ([pair[side] for pair in band.values()] for side in (0, 1))
            label = None if points else f"{name}, over workers"
            places = [reached(rounds) for rounds in band]
            axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0, label=label)
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


def _reached(history: History, over: Over) -> Callable[[int], float]:
    """Return what tells how much of something had been used when a number of rounds was trained."""
    if over not in get_args(Over):
        raise ValueError(f"over={over!r} is no axis of a history. Use one of {', '.join(get_args(Over))}.")
    if over == "rounds":
        return float
    if over == "simulated_seconds" and any(record.simulated_seconds is None for record in history):
        raise ValueError(
            "over='simulated_seconds' needs a run with a simulated clock: "
            "FederatedStrategy(clock=SimulatedClock(...))."
        )
    ends = [record.round + 1 for record in history]
    sums = [0.0, *accumulate(_used(record, over) for record in history)]
    return lambda rounds: sums[bisect_right(ends, rounds)]


def _used(record: RoundRecord, over: Over) -> float:
    if over == "simulated_seconds":
        return record.simulated_seconds or 0.0
    return (record.bytes_up + record.bytes_down) / _MB


_LABELS: dict[Over, str] = {"simulated_seconds": "simulated seconds", "megabytes": "MB moved"}


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
