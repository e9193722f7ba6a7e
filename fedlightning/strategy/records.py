"""What happened, for people: records of visits, rounds and workers. Data only; `history` keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class VisitStart:
    """One visit to a worker, before its work begins.

    Args:
        round: Number of the round, from 0.
        worker: Name of the worker.
        samples: Number of its samples.
        first_step: Number of the first batch in the worker's stream of batches.
        steps: Local steps to do.
    """

    round: int
    worker: str
    samples: int
    first_step: int
    steps: int


@dataclass(frozen=True, slots=True)
class VisitRecord:
    """One completed visit: what left the worker through its policy, and nothing else.

    Args:
        round: Number of the round, from 0.
        worker: Name of the worker.
        samples: Number of its samples.
        steps: Local steps done.
        loss: Mean training loss over the steps; ``None`` where every step was skipped.
        metrics: Values given to ``self.log`` during the visit. Torchmetrics are among them where a round has
            several visits; with one, their state travels inside the module and has no value of the visit's.
        bytes_up: Bytes that left the worker.
        bytes_down: Bytes that were sent to it.
        simulated_seconds: How long it took by the simulated clock; ``None`` where there is none.
        staleness: Updates of the global model since the one that it began with; ``None`` where the server
            waits for all.
    """

    round: int
    worker: str
    samples: int
    steps: int
    loss: float | None
    metrics: Mapping[str, float]
    bytes_up: int
    bytes_down: int
    simulated_seconds: float | None = None
    staleness: int | None = None


@dataclass(frozen=True, slots=True)
class EvaluatedWorker:
    """One worker in a validation where the data is.

    Args:
        rounds: Rounds trained before it.
        worker: Name of the worker.
        samples: Number of its samples, in the loader that was evaluated.
        personal: Whether a model of the worker's own was evaluated, instead of the global one.
        metrics: What ``validation_step`` logged, over the worker's own data alone.
    """

    rounds: int
    worker: str
    samples: int
    personal: bool
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One completed round.

    Args:
        round: Its number, from 0.
        workers: Names of the cohort, without those that were skipped.
        steps: Local steps, over the whole cohort.
        loss: Mean training loss; ``None`` where every step was skipped.
        metrics: Values given to ``self.log`` during the round, combined over the cohort.
        bytes_up: Bytes that left the workers, candidates that were only asked for their loss included.
        bytes_down: Bytes that were sent to the workers, and to candidates.
        spread: How the metrics (the loss, where nothing was logged) differ over the cohort: ``<metric>_min``,
            ``_p10`` (10th percentile), ``_median``, ``_std``, ``_low10`` and ``_high10`` (means of the lowest
            and the highest tenth) and ``_gap`` (between the extremes). Empty for a cohort of one.
        skipped: Why a worker of the cohort sent no update, by name.
        simulated_seconds: How long it took by the simulated clock; ``None`` where there is none.
    """

    round: int
    workers: tuple[str, ...]
    steps: int
    loss: float | None
    metrics: Mapping[str, float]
    bytes_up: int
    bytes_down: int
    spread: Mapping[str, float] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    simulated_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RoundTimes:
    """Seconds on the clock that a round took, by phase; what the phases are is said in `phases`.

    Args:
        round: Number of the round, from 0.
        send: Finding workers, placing data at the first visit, moving the module there and back.
        work: Local work.
        aggregate: Combining updates and stepping the global module.
        evaluate: Validations after this round and before the next.
        log: Records, listeners, and what is logged for the round.
    """

    round: int
    send: float = 0.0
    work: float = 0.0
    aggregate: float = 0.0
    evaluate: float = 0.0
    log: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerSummary:
    """One worker: what it holds, how the global module does there, and what has passed its door.

    Args:
        worker: Its name.
        samples: Number of its samples.
        label_counts: Samples of each label; empty where its data has no labels, or where the worker's policy
            keeps them.
        metrics: What the global module's ``validation_step`` logs on the worker's own data; empty where it
            was not evaluated.
        sent_bytes: Bytes that left the worker.
        received_bytes: Bytes that were sent to it.
        data_bytes: Bytes of its samples; 0 where the data does not tell.
    """

    worker: str
    samples: int
    label_counts: Mapping[int, int]
    metrics: Mapping[str, float]
    sent_bytes: int
    received_bytes: int
    data_bytes: int = 0
