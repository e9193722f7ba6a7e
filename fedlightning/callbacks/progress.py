"""Lightning's progress bars with the round and its workers in them; nothing else is changed."""

from __future__ import annotations

from collections.abc import Sequence

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from typing_extensions import override

from fedlightning.callbacks.federation import federation_of

_NAMED = 3


class _RoundInBar(ProgressBar):
    @override
    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the bar's items: round and workers, then what Lightning shows."""
        items = super().get_metrics(trainer, pl_module)
        federation = federation_of(trainer)
        plan = federation.current_plan if federation is not None else None
        if plan is None:
            return items
        return {"round": plan.round, "workers": cohort_text(plan.workers), **items}


class FederatedProgressBar(_RoundInBar, TQDMProgressBar):
    """Show ``round`` and ``workers`` in Lightning's plain (tqdm) progress bar."""


class FederatedRichProgressBar(_RoundInBar, RichProgressBar):
    """Show ``round`` and ``workers`` in Lightning's rich progress bar (needs the package ``rich``)."""


def cohort_text(workers: Sequence[str]) -> str:
    """Name up to three workers, count more.

    Example:
        >>> cohort_text(["bob", "alice"])
        'bob alice'
        >>> cohort_text([f"worker{number}" for number in range(10)])
        '10'
    """
    return " ".join(workers) if len(workers) <= _NAMED else str(len(workers))
