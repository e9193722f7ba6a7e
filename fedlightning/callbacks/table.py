"""The callback that prints the result table at the end of a fit. Its cells are laid out in `report`."""

from __future__ import annotations

from importlib.util import find_spec

import lightning as L
from typing_extensions import override

from fedlightning.callbacks.federation import federation_of
from fedlightning.callbacks.report import Report, make_report


class FederationTable(L.Callback):
    """Print, at the end of a fit, what each worker holds and how the global module does there.

    Columns: worker, samples, labels (a bar per label, the worker's most frequent one highest), what the
    module's ``validation_step`` logs on the worker's own samples, and bytes sent and received. The last row
    has the sums and the global module's validation metrics. Does nothing without a federation.

    Args:
        max_workers: rows to print; the sums are over all workers in any case.

    Raises:
        ValueError: if ``max_workers`` is less than 1.
    """

    def __init__(self, max_workers: int = 30) -> None:
        if max_workers < 1:
            raise ValueError(f"max_workers must be at least 1; got {max_workers}.")
        self.max_workers = max_workers
        self._report: Report | None = None

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Collect the reports while the workers are there."""
        federation = federation_of(trainer)
        if federation is not None:
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self._report = make_report(federation.federation_summary(), metrics)

    @override
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the table once the progress bar is through."""
        if self._report is not None and trainer.is_global_zero:
            print_report(self._report, self.max_workers)


def print_report(report: Report, max_workers: int) -> None:
    """Print a report with rich where it is installed, else as aligned text.

    Args:
        report: what to print.
        max_workers: rows to print, the foot not counted.
    """
    rows = report.rows[:max_workers]
    hidden = len(report.rows) - len(rows)
    shown = Report(report.head, rows, report.foot)
    if find_spec("rich") is not None:
        _print_rich(shown)
    else:
        print(as_text(shown))
    if hidden:
        print(f"... and {hidden} more workers")


def as_text(report: Report) -> str:
    """Return the table as lines of aligned columns, words to the left and numbers to the right."""
    lines = (report.head, *report.rows, report.foot)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if _is_number(title) else cell.ljust(width)
            for title, cell, width in zip(report.head, line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def _print_rich(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="The federation", show_footer=True)
    for title, foot in zip(report.head, report.foot, strict=True):
        table.add_column(title, foot, justify="right" if _is_number(title) else "left", no_wrap=True)
    for row in report.rows:
        table.add_row(*row)
    Console().print(table)


def _is_number(title: str) -> bool:
    return title not in ("worker", "labels")
