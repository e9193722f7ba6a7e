"""The callback that draws the federation at the end of a fit: labels per worker, a metric over rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
from typing_extensions import override

from fedlightning.callbacks.federation import federation_of
from fedlightning.data.plots import plot_label_bars
from fedlightning.strategy import WorkerSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class FederationPlot(L.Callback):
    """Draw one picture at the end of a fit: labels per worker beside a validation metric over rounds.

    Needs the package ``matplotlib``. Does nothing without a federation.

    Args:
        path: the picture's file; its ending names the format (``.png``, ``.svg``, ``.pdf``).
        metric: name of the validation metric, as the module logs it.
    """

    def __init__(self, path: str | Path = "federation.png", metric: str = "val/acc") -> None:
        self.path = Path(path)
        self.metric = metric

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw while the workers are there, and write the file."""
        federation = federation_of(trainer)
        if federation is None or not trainer.is_global_zero:
            return
        points = [
            (evaluation.rounds, evaluation.metrics[self.metric])
            for evaluation in federation.history.evaluations
            if self.metric in evaluation.metrics
        ]
        rounds, values = [point[0] for point in points], [point[1] for point in points]
        workers = federation.federation_summary(evaluate=False)
        figure = draw_federation(workers, rounds, values, self.metric)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.path, dpi=150)


def draw_federation(
    workers: Sequence[WorkerSummary], rounds: Sequence[int], values: Sequence[float], metric: str
) -> Figure:
    """Draw labels per worker beside a metric over rounds.

    Args:
        workers: the workers' summaries.
        rounds: rounds trained when the metric was measured, shape ``(N,)``.
        values: the metric, shape ``(N,)``.
        metric: its name.
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no state shared with the user's figures
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 4), layout="constrained")
    workers_axes, metric_axes = figure.subplots(1, 2)
    _draw_workers(workers_axes, workers)
    metric_axes.plot(rounds, values, marker=".")
    metric_axes.set(xlabel="rounds", ylabel=metric, title="Global module")
    metric_axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    metric_axes.grid(alpha=0.3)
    return figure


def _draw_workers(axes: Axes, workers: Sequence[WorkerSummary]) -> None:
    """Draw each worker's samples, by label where there are labels."""
    counts = {worker.worker: worker.label_counts for worker in workers}
    if any(counts.values()):
        plot_label_bars(counts, axes)
        axes.set_title("Labels per worker")
    else:
        axes.bar([worker.worker for worker in workers], [worker.samples for worker in workers])
        axes.set(title="Samples per worker", xlabel="worker", ylabel="samples")
