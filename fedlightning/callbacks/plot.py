"""The callback that draws the federation at the end of a fit: labels per worker, a metric over rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
from typing_extensions import override

from fedlightning.callbacks.federation import WorkerReport, federation_of
from fedlightning.data.plots import plot_label_bars

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
        self.rounds: list[int] = []
        self.values: list[float] = []

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the metric; the Trainer's global step is the number of rounds trained so far."""
        value = trainer.callback_metrics.get(self.metric)
        if value is not None and not trainer.sanity_checking and trainer.state.fn == "fit":
            self.rounds.append(trainer.global_step)
            self.values.append(float(value))

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw while the workers are there, and write the file."""
        federation = federation_of(trainer)
        if federation is None or not trainer.is_global_zero:
            return
        figure = draw_federation(federation.federation_summary(), self.rounds, self.values, self.metric)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.path, dpi=150)

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return the curve so far, so that a resumed run draws all of it."""
        return {"rounds": list(self.rounds), "values": list(self.values)}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the curve of the run that is resumed."""
        self.rounds = list(state_dict["rounds"])
        self.values = list(state_dict["values"])


def draw_federation(
    workers: Sequence[WorkerReport], rounds: Sequence[int], values: Sequence[float], metric: str
) -> Figure:
    """Draw labels per worker beside a metric over rounds.

    Args:
        workers: the workers' reports.
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


def _draw_workers(axes: Axes, workers: Sequence[WorkerReport]) -> None:
    """Draw each worker's samples, by label where there are labels."""
    counts = {worker.worker: worker.label_counts for worker in workers}
    if any(counts.values()):
        plot_label_bars(counts, axes)
        axes.set_title("Labels per worker")
    else:
        axes.bar([worker.worker for worker in workers], [worker.samples for worker in workers])
        axes.set(title="Samples per worker", xlabel="worker", ylabel="samples")
