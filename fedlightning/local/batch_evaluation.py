"""Validation, test and prediction on one batch of a worker's own data, as a Trainer runs them.

What is logged there leaves as aggregates; predictions stay. A whole shard at once is read in ``evaluation``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor

from fedlightning.data.shard import Shard
from fedlightning.local.failures import named_step
from fedlightning.local.lightning_calls import transfer_batch
from fedlightning.local.logs import LoggedValue, recorded_logs
from fedlightning.local.metrics import (
    MetricState,
    put_states,
    report_states,
    reset_metrics,
    samples_kept_by,
    take_states,
)
from fedlightning.local.personal import personal_in_place
from fedlightning.local.randomness import own_randomness
from fedlightning.workers import program
from fedlightning.workers.payload import payload_bytes
from fedlightning.workers.remote import record
from fedlightning.workers.samples import kept_samples

EvaluationStep = Literal["validation_step", "test_step", "predict_step"]


@record
@dataclass(frozen=True)
class EvaluationVisit:
    """One batch to evaluate.

    Args:
        step: Which of the module's steps.
        number: Number of the batch in the worker's data.
        arguments: What the step takes after the batch: its index, that of its loader, or neither.
        seed: Seed of the step's own random stream.
        dataloader_idx: Which of several loaders the batch is from.
    """

    step: EvaluationStep
    number: int
    arguments: tuple[int, ...]
    seed: int
    dataloader_idx: int = 0


@record
@dataclass(frozen=True)
class EvaluationReport:
    """What leaves a worker after the evaluation of a batch: aggregates, no samples.

    Args:
        logs: What ``self.log`` was given.
        metrics: States of the torchmetrics that were updated.
    """

    logs: tuple[LoggedValue, ...]
    metrics: tuple[MetricState, ...]


@payload_bytes.register
def _(value: EvaluationReport) -> int:
    logs = sum(payload_bytes((logged.name, logged.weight, logged.value)) for logged in value.logs)
    return logs + sum(payload_bytes(metric.values) for metric in value.metrics)


@kept_samples.register
def _(value: EvaluationReport) -> str:
    return samples_kept_by(value.metrics)


class ShardReader:
    """Read a shard batch by batch, from the first to the last and then again.

    Args:
        shard: The worker's data.
        seed: Seed of the order, where the loader shuffles.
        worker: Name of the worker.
    """

    def __init__(self, shard: Shard, seed: int, worker: str) -> None:
        self._shard = shard
        self._seed = seed
        self._worker = worker
        self._next = 0
        self._batches: Iterator[Any] = iter(())

    def read(self, number: int) -> Any:
        """Return batch ``number``; quickest in order, because a loader's own workers read ahead."""
        if number != self._next or number == 0:
            rest = self._shard.num_batches - number
            self._batches = self._shard.batches(number, rest, seed=self._seed, worker=self._worker)
        self._next = number + 1
        return next(self._batches)


@program(returns="data")
def open_reader(shard: Shard, *, seed: int, worker: str) -> ShardReader:
    """Open a worker's shard for evaluation; the reader stays at the worker."""
    return ShardReader(shard, seed, worker)


@program(returns="metrics")
def evaluate_batch(
    module: pl.LightningModule,
    reader: ShardReader,
    visit: EvaluationVisit,
    personal: Sequence[Tensor] | None = None,
) -> EvaluationReport:
    """Run ``validation_step`` or ``test_step`` on a batch of the worker's.

    Args:
        module: The module, sent to this worker in evaluation mode; its metrics come out as they went in.
        reader: The worker's data.
        visit: Which batch and which step.
        personal: The worker's own version of the module, where its algorithm has one.

    Returns:
        Logged values and metric states of this batch alone.

    Raises:
        LocalStepFailed: The user's code raised; names the batch.
    """
    before = take_states(module)
    reset_metrics(module)
    try:
        with (
            recorded_logs(module) as logs,
            own_randomness(visit.seed),
            named_step(visit.number),
            torch.no_grad(),
            personal_in_place(module, personal),
        ):
            batch = transfer_batch(module, reader.read(visit.number), visit.dataloader_idx)
            logs.start_step(batch)
            _run_step(module, batch, visit)
        return EvaluationReport(logs.values, report_states(module))
    finally:
        put_states(module, before)


@program(returns="data")
def predict_batch(
    module: pl.LightningModule,
    reader: ShardReader,
    visit: EvaluationVisit,
    personal: Sequence[Tensor] | None = None,
) -> Any:
    """Run ``predict_step`` on a batch of the worker's.

    Args:
        module: The module, sent to this worker in evaluation mode.
        reader: The worker's data.
        visit: Which batch.
        personal: The worker's own version of the module, where its algorithm has one.

    Returns:
        The prediction. It is data: started rather than run, it stays at the worker.

    Raises:
        LocalStepFailed: The user's code raised; names the batch.
    """
    with (
        own_randomness(visit.seed),
        named_step(visit.number),
        torch.no_grad(),
        personal_in_place(module, personal),
    ):
        batch = transfer_batch(module, reader.read(visit.number), visit.dataloader_idx)
        return _run_step(module, batch, visit)


def _run_step(module: pl.LightningModule, batch: Any, visit: EvaluationVisit) -> Any:
    precision = module.trainer.precision_plugin
    contexts = {
        "validation_step": precision.val_step_context,
        "test_step": precision.test_step_context,
        "predict_step": precision.predict_step_context,
    }
    with contexts[visit.step]():
        return getattr(module, visit.step)(batch, *visit.arguments)
