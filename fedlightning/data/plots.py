"""Pictures of a partition: who has which labels, and how many samples. Drawn from counts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fedlightning.data.labels import Column, find_labels
from fedlightning.data.map_style import MapStyle
from fedlightning.data.partition.base import Partition

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LabelCounts: TypeAlias = Mapping[str, Mapping[Any, int]]

MAX_NAMED_WORKERS = 20
MAX_LEGEND_ROWS = 14


def count_labels(dataset: MapStyle, partition: Partition, labels: Column | None = None) -> LabelCounts:
    """Count the samples of each class at each worker.

    Args:
        dataset: The dataset that was divided.
        partition: Who has which samples.
        labels: Where the labels are, if the dataset does not show them (see `find_labels`).

    Returns:
        For each worker's name (or number) a mapping from class to number of samples, every class included.

    Example:
        >>> from fedlightning.data import Explicit
        >>> labels = np.array([1, 0, 1])
        >>> count_labels(labels, Explicit({"bob": [0, 2], "alice": [1]}).split(labels), labels)
        {'bob': {0: 0, 1: 2}, 'alice': {0: 1, 1: 0}}
    """
    values = find_labels(dataset, labels)
    classes, codes = np.unique(values, return_inverse=True)
    names = partition.worker_names or tuple(str(number) for number in range(len(partition)))
    return {
        name: dict(
            zip(classes.tolist(), np.bincount(codes[part], minlength=len(classes)).tolist(), strict=True)
        )
        for name, part in zip(names, partition.indices, strict=True)
    }


def plot_label_bars(counts: LabelCounts, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw one bar per worker, stacked by class.

    Args:
        counts: For each worker's name a mapping from class to number of samples (`count_labels`, or
            `Shard.label_counts` of each).
        ax: Where to draw; None makes a new figure.

    Returns:
        The figure and its axes.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        ValueError: If there are no counts.
    """
    names, classes, table = _as_table(counts)
    legend_columns = -(-len(classes) // MAX_LEGEND_ROWS)
    figure, axes = _canvas(ax, width=max(4.0, 1.0 + legend_columns + 0.45 * len(names)))
    bottom = np.zeros(len(names))
    for position, (label, column) in enumerate(zip(classes, table.T, strict=True)):
        color = _color(position, len(classes))
        axes.bar(range(len(names)), column, bottom=bottom, width=0.8, color=color, label=str(label))
        bottom += column
    _name_workers(axes, names)
    axes.set_ylabel("samples")
    axes.margins(x=0.02)
    # Classes that a worker lacks are bars without height, and Matplotlib leaves no room above their feet.
    axes.set_ylim(0, 1.05 * bottom.max())
    # Reversed, so that the legend is in the order of the stack.
    handles, texts = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1],
        texts[::-1],
        title="label",
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        ncols=legend_columns,
    )
    return figure, axes


def plot_label_heatmap(counts: LabelCounts, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw workers by classes: the shade is the share of the worker's samples, the number their count.

    Args:
        counts: For each worker's name a mapping from class to number of samples.
        ax: Where to draw; None makes a new figure.

    Returns:
        The figure and its axes.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        ValueError: If there are no counts.
    """
    names, classes, table = _as_table(counts)
    height, width = 1.5 + 0.3 * min(len(names), 40), 2.5 + 0.5 * len(classes)
    figure, axes = _canvas(ax, width=width, height=height)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, vmin=0.0, vmax=1.0, cmap="Blues", aspect="auto")
    axes.set_xticks(range(len(classes)), [str(label) for label in classes])
    axes.set_xlabel("label")
    axes.set_ylabel("worker")
    if len(names) <= MAX_NAMED_WORKERS:
        axes.set_yticks(range(len(names)), names)
        for row, column in np.ndindex(table.shape):
            shade = "white" if shares[row, column] > 0.5 else "black"
            axes.text(
                column, row, f"{table[row, column]:d}", ha="center", va="center", color=shade, fontsize=8
            )
    figure.colorbar(image, ax=axes, label="share of the worker's samples")
    return figure, axes


def plot_sizes(counts: LabelCounts, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw one bar per worker: its number of samples, and the mean over workers as a line.

    Args:
        counts: For each worker's name a mapping from class to number of samples.
        ax: Where to draw; None makes a new figure.

    Returns:
        The figure and its axes.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        ValueError: If there are no counts.
    """
    names, _, table = _as_table(counts)
    figure, axes = _canvas(ax, width=max(4.0, 2.0 + 0.45 * len(names)))
    sizes = table.sum(axis=1)
    axes.bar(range(len(names)), sizes, width=0.8, color="tab:blue")
    axes.axhline(sizes.mean(), color="black", linestyle="--", linewidth=1, label=f"mean {sizes.mean():.1f}")
    _name_workers(axes, names)
    axes.set_ylabel("samples")
    axes.margins(x=0.02)
    # Above the axes: bars of equal sizes would leave no room within.
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    return figure, axes


def _as_table(counts: LabelCounts) -> tuple[list[str], list[Any], npt.NDArray[np.int64]]:
    """Give names, sorted classes, and the counts as a table of shape ``(workers, classes)``."""
    classes = sorted({label for own in counts.values() for label in own})
    if not classes:
        raise ValueError("counts is empty: give at least one worker with at least one class.")
    table = np.array([[own.get(label, 0) for label in classes] for own in counts.values()], dtype=np.int64)
    return list(counts), classes, table


def _canvas(ax: Axes | None, width: float, height: float = 3.6) -> tuple[Figure, Axes]:
    if ax is not None:
        figure = ax.get_figure(root=True)
        assert figure is not None, "axes always belong to a figure"
        return figure, ax
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Plots need matplotlib: pip install 'fedlightning[examples]'.") from error
    # Not through pyplot, which would keep every figure alive and choose a window system.
    figure = Figure(figsize=(min(width, 14.0), height), layout="constrained")
    return figure, figure.subplots()


def _name_workers(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xlabel("worker")
    if len(names) <= MAX_NAMED_WORKERS:
        long = max(len(name) for name in names) > 3
        axes.set_xticks(
            range(len(names)), names, rotation=45 if long else 0, ha="right" if long else "center"
        )


def _color(position: int, number: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab10"](position) if number <= 10 else colormaps["turbo"](position / (number - 1))
