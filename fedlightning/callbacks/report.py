"""The result table as rows of text: pure functions of the workers' reports. Printing lives in `table`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedlightning.callbacks.federation import WorkerReport
from fedlightning.strategy.wording import bars, human_bytes


@dataclass(frozen=True)
class Report:
    """A table of text.

    Args:
        head: one title per column.
        rows: one row per worker, each with a cell per column.
        foot: the row of the whole federation.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    foot: tuple[str, ...]


def make_report(workers: Sequence[WorkerReport], global_metrics: Mapping[str, float]) -> Report:
    """Lay out one row per worker, and one for the whole.

    Args:
        workers: the workers' reports, in the order of the rows.
        global_metrics: the global module's validation metrics; those that no worker has are left out.
    """
    labels = sorted({label for worker in workers for label in worker.label_counts})
    metrics = sorted({name for worker in workers for name in worker.metrics})
    return Report(
        head=("worker", "samples", "labels", *metrics, "sent", "received"),
        rows=tuple(_row(worker, labels, metrics) for worker in workers),
        foot=(
            "global",
            str(sum(worker.samples for worker in workers)),
            bars(_total(workers, labels)),
            *(_number(global_metrics.get(name)) for name in metrics),
            human_bytes(sum(worker.sent_bytes for worker in workers)),
            human_bytes(sum(worker.received_bytes for worker in workers)),
        ),
    )


def _row(worker: WorkerReport, labels: Sequence[int], metrics: Sequence[str]) -> tuple[str, ...]:
    return (
        worker.worker,
        str(worker.samples),
        bars(worker.label_counts.get(label, 0) for label in labels),
        *(_number(worker.metrics.get(name)) for name in metrics),
        human_bytes(worker.sent_bytes),
        human_bytes(worker.received_bytes),
    )


def _total(workers: Sequence[WorkerReport], labels: Sequence[int]) -> list[int]:
    return [sum(worker.label_counts.get(label, 0) for worker in workers) for label in labels]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
