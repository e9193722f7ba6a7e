"""Lightning's progress bars with the round, its workers and its loss in them; nothing else is changed."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import TypeAlias

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from typing_extensions import override

from fedlightning.algorithms import Plan
from fedlightning.callbacks.federation import federation_of
from fedlightning.callbacks.hooks import FederatedCallback
from fedlightning.strategy import VisitRecord, VisitStart

_NAMED = 3
_SECONDS_BETWEEN_VISITS_SHOWN = 0.1

Items: TypeAlias = dict[str, int | str | float | dict[str, float]]


class _RoundInBar(FederatedCallback, ProgressBar):
    """Put round, workers and loss before what Lightning shows, and follow the visits of a round."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._cohort: Sequence[str] = ()
        self._visited = 0
        self._at: str | None = None
        self._shown = 0.0

    def _redraw(self, items: Items) -> None:
        """Show the items now; the bar itself is redrawn at the end of a batch only."""
        raise NotImplementedError

    @override
    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Items:
        """Return the bar's items: round, workers and loss, then what Lightning shows."""
        items: Items = super().get_metrics(trainer, pl_module)
        federation = federation_of(trainer)
        if federation is None or federation.current_plan is None:
            return items
        plan, history = federation.current_plan, federation.history
        loss = history[-1].loss if history else None
        # As text: the rich bar writes every number with three decimals.
        ours: Items = {"round": str(plan.round), "workers": self._workers_text(plan)}
        return ours | ({"loss": loss} if loss is not None else {}) | items

    @override
    def on_round_start(self, trainer: L.Trainer, pl_module: L.LightningModule, plan: Plan) -> None:
        self._visited = 0

    @override
    def on_worker_start(self, trainer: L.Trainer, pl_module: L.LightningModule, visit: VisitStart) -> None:
        self._at = visit.worker
        now = monotonic()
        if now - self._shown > _SECONDS_BETWEEN_VISITS_SHOWN:
            self._shown = now
            self._redraw(self.get_metrics(trainer, pl_module))

    @override
    def on_worker_end(self, trainer: L.Trainer, pl_module: L.LightningModule, visit: VisitRecord) -> None:
        self._at = None
        self._visited += 1

    def _workers_text(self, plan: Plan) -> str:
        if self._at is None:
            return cohort_text(plan.workers)
        return f"{self._at} ({self._visited + 1}/{len(plan.workers)})"


class FederatedProgressBar(_RoundInBar, TQDMProgressBar):
    """Show ``round``, ``workers`` and the round's ``loss`` in Lightning's plain (tqdm) progress bar.

    Within a round, the worker that trains is shown, and how many of the cohort there are.
    """

    @override
    def _redraw(self, items: Items) -> None:
        if self.is_enabled:
            self.train_progress_bar.set_postfix(items)


class FederatedRichProgressBar(_RoundInBar, RichProgressBar):
    """Show ``round``, ``workers`` and the round's ``loss`` in Lightning's rich progress bar.

    Needs the package ``rich``. Within a round, the worker that trains is shown, as in `FederatedProgressBar`.
    """

    @override
    def _redraw(self, items: Items) -> None:
        # Lightning offers no public way; tests/callbacks/test_progress.py fails if this one moves.
        if self._metric_component is not None:
            self._metric_component.update(items)
            self.refresh()


def cohort_text(workers: Sequence[str]) -> str:
    """Name up to three workers, count more.

    Example:
        >>> cohort_text(["bob", "alice"])
        'bob alice'
        >>> cohort_text([f"worker{number}" for number in range(10)])
        '10'
    """
    return " ".join(workers) if len(workers) <= _NAMED else str(len(workers))
