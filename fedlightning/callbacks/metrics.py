"""The callback that logs what only a federation has: metrics per worker, their spread, bytes moved."""

from __future__ import annotations

from collections.abc import Mapping

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from fedlightning.algorithms import Plan
from fedlightning.callbacks.federation import federation_of
from fedlightning.callbacks.hooks import FederatedCallback
from fedlightning.strategy import RoundRecord, VisitRecord
from fedlightning.strategy.history import MAX_NAMED_WORKERS
from fedlightning.strategy.reporting import metrics_or_losses, spread_of

_MB = 1e6


class FederatedMetrics(FederatedCallback):
    """Log to the Trainer's loggers, once per round, how the workers differ and what was moved.

    What the module logs keeps its name and its place: ``train/loss`` is the cohort's, in the loggers as
    without this callback. Added are, at the step that is the round's number:

    - ``worker/<id>/<metric>``: the metric at one worker, for cohorts up to ``max_workers``;
    - ``spread/<metric>_min``, ``_p10``, ``_median``, ``_std``, ``_low10``, ``_high10``, ``_gap``: how the
      cohort differs (minimum, 10th percentile, median, standard deviation, means of the lowest and highest
      tenth, distance of the extremes; every worker counts alike);
    - ``comm/up_mb``, ``comm/down_mb``: megabytes (10^6 bytes) that left and reached the workers.

    Where the validation data lies at the workers, what ``validation_step`` logs there is added at each
    validation. A module that logs nothing in training has its ``loss`` as the metric. Spread and bytes can be
    monitored, too, e.g. ``EarlyStopping(monitor="spread/train/acc_min")``. No random number is drawn and no
    parameter touched: a run has the same bits with and without.

    Args:
        workers: Whether to log each worker.
        spread: Whether to log the spread.
        comm: Whether to log the bytes.
        max_workers: Cohorts larger than this are logged by their spread only.
    """

    def __init__(
        self,
        *,
        workers: bool = True,
        spread: bool = True,
        comm: bool = True,
        max_workers: int = MAX_NAMED_WORKERS,
    ) -> None:
        self.workers = workers
        self.spread = spread
        self.comm = comm
        self.max_workers = max_workers
        self._visits: list[VisitRecord] = []

    @override
    def on_round_start(self, trainer: L.Trainer, pl_module: L.LightningModule, plan: Plan) -> None:
        self._visits = []

    @override
    def on_worker_end(self, trainer: L.Trainer, pl_module: L.LightningModule, visit: VisitRecord) -> None:
        self._visits.append(visit)

    @override
    def on_round_end(self, trainer: L.Trainer, pl_module: L.LightningModule, record: RoundRecord) -> None:
        """Log the round."""
        names = [visit.worker for visit in self._visits]
        rows = dict(zip(names, metrics_or_losses(self._visits), strict=True))
        moved = {"comm/up_mb": record.bytes_up / _MB, "comm/down_mb": record.bytes_down / _MB}
        self._log(trainer, record.round, rows, record.spread, moved if self.comm else {})

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log a validation of federated data, worker by worker."""
        federation = federation_of(trainer)
        if federation is None or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        rows = {entry.worker: entry.metrics for entry in federation.evaluation_by_worker()}
        if rows:
            self._log(trainer, trainer.global_step, rows, spread_of(list(rows.values())), {})

    def _log(
        self,
        trainer: L.Trainer,
        step: int,
        rows: Mapping[str, Mapping[str, float]],
        spread: Mapping[str, float],
        moved: Mapping[str, float],
    ) -> None:
        overall = dict(moved)
        if self.spread:
            overall |= {f"spread/{name}": value for name, value in spread.items()}
        named = self.workers and len(rows) <= self.max_workers
        values = {
            f"worker/{worker}/{name}": value
            for worker, metrics in (rows.items() if named else ())
            for name, value in metrics.items()
        }
        for logger in trainer.loggers:
            logger.log_metrics(values | overall, step=step)
        # As Lightning's LearningRateMonitor does, so that other callbacks can monitor them.
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in overall.items()})
