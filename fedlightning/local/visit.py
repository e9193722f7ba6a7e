"""What a worker is asked to do in one visit, and what it reports. Data only: both cross the wire."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedlightning.local.logs import LoggedValue
from fedlightning.local.metrics import MetricState, samples_kept_by
from fedlightning.local.scheduling import SchedulerState
from fedlightning.workers.payload import payload_bytes
from fedlightning.workers.remote import record
from fedlightning.workers.samples import kept_samples


@record
@dataclass(frozen=True)
class Visit:
    """One visit of the module to a worker.

    Args:
        round: Number of the federated round.
        first_step: Number of the first batch in the worker's endless stream of batches.
        steps: Local steps, at least 1.
        seed: Seed of the visit's own random stream (dropout, augmentation), or ``None`` to draw from the
            process's global stream, as an ordinary ``fit`` does.
        accumulate: Batches whose gradients are accumulated into one step of the optimizer.
        passes_batch_idx: Whether ``training_step`` takes a ``batch_idx``.
        separates_metrics: Whether torchmetrics start the visit empty and are reported on their own, to be
            merged with those of other workers; otherwise they travel inside the module.
        requires_finite: Whether a visit that ends with NaN or infinity counts as failed.
        keeps_gradients: Whether the module brings gradients along and takes others home, as one that steps
            by hand does from batch to batch in an ordinary ``fit``; otherwise they are dropped.
        keeps_buffers: Whether buffers stay at the worker for its next visit.
        schedulers: Schedulers that the module steps itself, where they are not at hand in process.
    """

    round: int
    first_step: int
    steps: int
    seed: int | None
    accumulate: int = 1
    passes_batch_idx: bool = True
    separates_metrics: bool = False
    requires_finite: bool = False
    keeps_gradients: bool = False
    keeps_buffers: bool = False
    schedulers: tuple[SchedulerState, ...] = ()


@record
@dataclass(frozen=True)
class VisitReport:
    """What leaves a worker after a visit, besides the module: aggregates over its steps, no samples.

    Args:
        steps: Local steps done.
        loss: Mean training loss over the steps, shape ``()``, or ``None`` where every step was skipped.
        logs: What ``self.log`` was given, combined over the steps.
        metrics: States of the torchmetrics that were updated, where the visit separates them.
        failed: Whether the visit required finite numbers, and found others: what it has changed is undone.
        samples: Samples in the batches of these steps, counted as often as they came, as far as batches tell.
        wastes_gradients: Whether gradients were dropped that a module that steps by hand had not used.
        schedulers: As the visit has left those that it was given.
    """

    steps: int
    loss: Tensor | None
    logs: tuple[LoggedValue, ...]
    metrics: tuple[MetricState, ...]
    failed: bool = False
    samples: int = 0
    wastes_gradients: bool = False
    schedulers: tuple[SchedulerState, ...] = ()


@payload_bytes.register
def _(value: VisitReport) -> int:
    loss = 0 if value.loss is None else value.loss.nbytes
    return (
        loss + sum(map(_bytes_of, value.logs)) + sum(payload_bytes(state.values) for state in value.metrics)
    )


def _bytes_of(logged: LoggedValue) -> int:
    # Without looking up what kind each part is: every visit reports some.
    return len(logged.name) + _BYTES_OF_WEIGHT + (0 if logged.value is None else logged.value.nbytes)


@kept_samples.register
def _(value: VisitReport) -> str:
    return samples_kept_by(value.metrics)


_BYTES_OF_WEIGHT = payload_bytes(0)
