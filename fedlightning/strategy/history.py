"""What happened, for people: one record per round, one summary per worker. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RoundRecord:
    """One completed round.

    Args:
        round: Its number, from 0.
        workers: Names of the cohort.
        steps: Local steps, over the whole cohort.
        loss: Mean training loss; ``None`` where every step was skipped.
        metrics: Values given to ``self.log`` during the round, combined over the cohort.
        bytes_up: Bytes that left the workers.
        bytes_down: Bytes that were sent to the workers.
    """

    round: int
    workers: tuple[str, ...]
    steps: int
    loss: float | None
    metrics: Mapping[str, float]
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True)
class WorkerSummary:
    """One worker at the end of a run.

    Args:
        worker: Its name.
        samples: Number of its samples.
        label_counts: Samples of each label; empty where its data has no labels.
        metrics: What the global module's ``validation_step`` logs on the worker's own data.
        sent_bytes: Bytes that left the worker.
        received_bytes: Bytes that were sent to it.
    """

    worker: str
    samples: int
    label_counts: Mapping[int, int]
    metrics: Mapping[str, float]
    sent_bytes: int
    received_bytes: int
