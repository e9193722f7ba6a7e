"""The callback that writes the report at the end of a fit."""

from __future__ import annotations

from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import lightning as L
from typing_extensions import override

from fedlightning.callbacks.federation import federation_of
from fedlightning.callbacks.report.contents import gather
from fedlightning.callbacks.report.page import as_html


class FederationReport(L.Callback):
    """Write a report of the run at the end of a fit: one HTML file, to be read anywhere and sent to anybody.

    It has the federation with its labels, the curves over rounds and how the workers differ, what was moved
    (the ledgers, summed), the configuration, the module's fingerprint and all versions. Pictures are inside;
    there are no scripts and nothing is fetched. Needs the package ``matplotlib``. Evaluates the module at
    every worker. Does nothing without a federation.

    Args:
        path: The file.
        title: What stands on top; the name of the module's class unless given.
        max_workers: Of more workers, quantiles are shown instead of a row each.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
    """

    def __init__(
        self, path: str | Path = "report.html", *, title: str | None = None, max_workers: int = 20
    ) -> None:
        if find_spec("matplotlib") is None:
            raise ModuleNotFoundError(
                "FederationReport draws with matplotlib: pip install 'fedlightning[examples]'."
            )
        self.path = Path(path)
        self.title = title
        self.max_workers = max_workers
        self._began = datetime.now()

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note when the run began."""
        self._began = datetime.now()

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gather everything while the workers are there, and write the file."""
        federation = federation_of(trainer)
        if federation is None or not trainer.is_global_zero:
            return
        contents = gather(
            trainer,
            pl_module,
            federation,
            title=self.title or type(pl_module).__name__,
            began=self._began,
            max_workers=self.max_workers,
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(as_html(contents), encoding="utf-8")
