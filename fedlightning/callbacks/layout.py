"""The tables of a federation as rows of text: pure functions of the workers' summaries. `table` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedlightning.strategy import WorkerSummary
from fedlightning.strategy.wording import bars, human_bytes

QUANTILES = {"min": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "max": 1.0}


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Args:
        head: One title per column.
        rows: Each with a cell per column.
        foot: The row of the whole federation.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    foot: tuple[str, ...]


def start_table(workers: Sequence[WorkerSummary], max_workers: int) -> TextTable:
    """Lay out what the workers hold, before the first round.

    Args:
        workers: Their summaries, in the order of the rows.
        max_workers: Of more workers, quantiles are shown instead of rows.
    """
    return _laid_out(
        workers, [_samples(workers), _share(workers), _labels(workers), _data(workers)], max_workers
    )


def end_table(
    workers: Sequence[WorkerSummary], global_metrics: Mapping[str, float], max_workers: int
) -> TextTable:
    """Lay out how the global module does at each worker, and what has passed the workers' doors.

    Args:
        workers: Their summaries, in the order of the rows.
        global_metrics: The global module's validation metrics; those that no worker has are left out.
        max_workers: Of more workers, quantiles are shown instead of rows.
    """
    names = sorted({name for worker in workers for name in worker.metrics})
    metrics = [_metric(name, workers, global_metrics.get(name)) for name in names]
    sent = _bytes("sent", [worker.sent_bytes for worker in workers])
    received = _bytes("received", [worker.received_bytes for worker in workers])
    return _laid_out(workers, [_samples(workers), _labels(workers), *metrics, sent, received], max_workers)


@dataclass(frozen=True)
class _Column:
    """One column: a number for each worker, how a number is written, and what stands in the last row.

    A column may show something else than its numbers (``cells``); its quantiles are those of the numbers.
    """

    title: str
    numbers: Sequence[float | None]
    write: Callable[[float], str]
    foot: str
    cells: Sequence[str] | None = None

    def texts(self) -> Iterable[str]:
        if self.cells is not None:
            return self.cells
        return ("-" if number is None else self.write(number) for number in self.numbers)

    def quantile(self, fraction: float) -> str:
        known = [number for number in self.numbers if number is not None]
        return self.write(float(np.quantile(known, fraction))) if known else "-"


def _laid_out(workers: Sequence[WorkerSummary], columns: Sequence[_Column], max_workers: int) -> TextTable:
    # A column of which nothing is known is none.
    columns = [column for column in columns if any(number is not None for number in column.numbers)]
    head = ("worker", *(column.title for column in columns))
    if len(workers) <= max_workers:
        names = [worker.worker for worker in workers]
        rows = tuple(zip(names, *(column.texts() for column in columns), strict=True))
    else:
        rows = tuple(
            (name, *(column.quantile(fraction) for column in columns)) for name, fraction in QUANTILES.items()
        )
    return TextTable(head, rows, ("global", *(column.foot for column in columns)))


def _samples(workers: Sequence[WorkerSummary]) -> _Column:
    numbers = [worker.samples for worker in workers]
    return _Column("samples", numbers, _whole, _whole(sum(numbers)))


def _share(workers: Sequence[WorkerSummary]) -> _Column:
    total = max(sum(worker.samples for worker in workers), 1)
    return _Column("share", [worker.samples / total for worker in workers], "{:.1%}".format, "100%")


def _labels(workers: Sequence[WorkerSummary]) -> _Column:
    labels = sorted({label for worker in workers for label in worker.label_counts})
    totals = [sum(worker.label_counts.get(label, 0) for worker in workers) for label in labels]
    return _Column(
        "labels",
        [sum(count > 0 for count in worker.label_counts.values()) or None for worker in workers],
        lambda number: f"{number:.3g} of {len(labels)}",
        bars(totals),
        cells=[
            bars(worker.label_counts.get(label, 0) for label in labels) if worker.label_counts else "-"
            for worker in workers
        ],
    )


def _data(workers: Sequence[WorkerSummary]) -> _Column:
    return _bytes("data", [worker.data_bytes or None for worker in workers])


def _metric(name: str, workers: Sequence[WorkerSummary], overall: float | None) -> _Column:
    foot = "-" if overall is None else f"{overall:.4f}"
    return _Column(name, [worker.metrics.get(name) for worker in workers], "{:.4f}".format, foot)


def _bytes(title: str, numbers: Sequence[int | None]) -> _Column:
    known = [number for number in numbers if number is not None]
    return _Column(
        title, numbers, lambda number: human_bytes(round(number)), human_bytes(sum(known)) if known else "-"
    )


def _whole(number: float) -> str:
    return f"{number:,.0f}"
