"""The callback that prints the federation before and after a fit. Its cells are laid out in `layout`."""

from __future__ import annotations

from importlib.util import find_spec

import lightning as L
from typing_extensions import override

from fedlightning.callbacks.federation import evaluated_workers, federation_of
from fedlightning.callbacks.layout import TextTable, end_table, start_table
from fedlightning.strategy import FederatedStrategy, WorkerSummary
from fedlightning.strategy.wording import counted, human_bytes
from fedlightning.workers.payload import payload_bytes


class FederationTable(L.Callback):
    """Print what each worker holds before the first round, and how the global module does there at the end.

    Before: samples, their share, labels (a bar per label, the worker's most frequent one highest) and the
    size of the data. After: what the module's ``validation_step`` logs on the worker's own samples, and bytes
    sent and received. The last row has the sums and the global module's validation metrics. Does nothing
    without a federation.

    Args:
        max_workers: Of more workers, quantiles are printed instead of a row each.
        start: Whether to print before the first round.
        end: Whether to print at the end; evaluates the module at every worker.

    Raises:
        ValueError: If ``max_workers`` is less than 1.
    """

    def __init__(self, max_workers: int = 20, *, start: bool = True, end: bool = True) -> None:
        if max_workers < 1:
            raise ValueError(f"max_workers must be at least 1; got {max_workers}.")
        self.max_workers = max_workers
        self.start = start
        self.end = end
        self._at_end: tuple[TextTable, str] | None = None

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print what the workers hold."""
        federation = federation_of(trainer)
        if federation is None or not self.start or not trainer.is_global_zero:
            return
        workers = _holdings(federation, self.max_workers)
        caption = f"{counted(len(workers), 'worker')}, a module of {human_bytes(payload_bytes(pl_module))}"
        text = rendered(start_table(workers, self.max_workers), "The federation", caption)
        # A progress bar may be up by now, and knows how to make room.
        bar = trainer.progress_bar_callback
        print(text) if bar is None else bar.print(text)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Collect the summaries while the workers are there."""
        federation = federation_of(trainer)
        if federation is None or not self.end or not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        workers = evaluated_workers(federation, pl_module)
        caption = f"{counted(len(workers), 'worker')} after {counted(len(federation.history), 'round')}"
        self._at_end = (end_table(workers, metrics, self.max_workers), caption)

    @override
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the table once the progress bar is through."""
        if self._at_end is not None:
            table, caption = self._at_end
            print(rendered(table, "The federation, trained", caption))
            self._at_end = None


def _holdings(federation: FederatedStrategy, max_workers: int) -> list[WorkerSummary]:
    """Return what each worker holds; of many, the numbers of samples, for which none has to be made."""
    samples = federation.federation.samples
    if len(samples) <= max_workers:
        return federation.federation_summary(evaluate=False)
    return [WorkerSummary(name, count, {}, {}, 0, 0) for name, count in samples.items()]


def rendered(table: TextTable, title: str, caption: str) -> str:
    """Set a table for the terminal: with rich where it is installed, else as aligned text.

    Args:
        table: What to set.
        title: Stands above it.
        caption: Stands below it.
    """
    if find_spec("rich") is not None:
        return _with_rich(table, title, caption)
    return f"{title}\n{as_text(table)}\n{caption}"


def as_text(table: TextTable) -> str:
    """Return the table as lines of aligned columns, words to the left and numbers to the right."""
    lines = (table.head, *table.rows, table.foot)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if is_number(title) else cell.ljust(width)
            for title, cell, width in zip(table.head, line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def is_number(title: str) -> bool:
    """Tell whether a column is one of numbers, which stand to the right."""
    return title not in ("worker", "labels")


def _with_rich(table: TextTable, title: str, caption: str) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rich = Table(title=title, caption=caption, show_footer=True, box=box.ROUNDED, header_style="bold")
    for name, foot in zip(table.head, table.foot, strict=True):
        style = "cyan" if name == "labels" else None
        rich.add_column(name, foot, justify="right" if is_number(name) else "left", no_wrap=True, style=style)
    for row in table.rows:
        rich.add_row(*row)
    console = Console()
    with console.capture() as capture:
        console.print(rich)
    return capture.get().rstrip("\n")
