"""What the controller and its processes tell each other. Data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fedlightning.local.memory import WorkerMemory
from fedlightning.local.metrics import MetricState
from fedlightning.local.vectorised.chunks import Numbers
from fedlightning.local.vectorised.pooled import PooledErrands
from fedlightning.local.vectorised.reports import ChunkReports
from fedlightning.local.visit import Visit, VisitReport
from fedlightning.strategy.errors import FailureKind
from fedlightning.strategy.processes.packing import Place
from fedlightning.strategy.processes.shared_memory import Layout, Shape

Outline = Mapping[str, Sequence[tuple[tuple[int, ...], torch.dtype]]]
"""Shapes and dtypes of tensors that stay where they are, by name."""


@dataclass(frozen=True)
class Prepare:
    """Get ready for a fit.

    Args:
        trainer: The part of that name of the first `Begin`.
    """

    trainer: bytes


@dataclass(frozen=True)
class Reserve:
    """Make room for a module; its memory comes along.

    Args:
        layout: Of its parameters and buffers.
        slots: How many means the memory has room for, after what visits start with.
        process: Number of the process.
        processes: How many there are; their `Claims` lie behind the means.
        device: Where it trains.
        torch_settings: What `torch_settings` has returned at the controller.
    """

    layout: Layout
    slots: int
    process: int
    processes: int
    device: str
    torch_settings: Mapping[str, Any]


@dataclass(frozen=True)
class Data:
    """Know data sets and how they are read; their memory comes along.

    Args:
        first: Number of the first of them.
        packed: The list of them.
        places: Of their tensors and arrays.
        nbytes: Size of the memory.
    """

    first: int
    packed: bytes
    places: Sequence[Place]
    nbytes: int


@dataclass(frozen=True)
class Rows:
    """Know where the samples of some cohorts will lie; their memory comes along.

    Args:
        first: Number of the first of the objects that are known of it.
        shapes: Those of the tensors.
        nbytes: Size of the memory.
    """

    first: int
    shapes: Sequence[Shape]
    nbytes: int


@dataclass(frozen=True)
class LetGo:
    """Let go of objects that nobody will speak of any more.

    Args:
        numbers: Their numbers.
    """

    numbers: Sequence[int]


@dataclass(frozen=True)
class Begin:
    """Begin a round.

    Args:
        parts: What has changed since the last one, packed: ``"trainer"``, ``"module"``, ``"optimizers"``.
        trained: Which tensors require a gradient.
        progress: The Trainer's epoch and step.
        procedures: What is done in visits, packed.
        processed: Whether updates go up processed, in place of the module.
        keeps_settings: Whether the controller asks for the optimizers' settings after each visit.
        retries: How often a visit that fails is done again.
    """

    parts: Mapping[str, bytes]
    trained: Sequence[bool]
    progress: tuple[int, int]
    procedures: bytes
    processed: bool
    keeps_settings: bool
    retries: int


@dataclass(frozen=True)
class Job:
    """One visit.

    Args:
        worker: Name of the worker.
        visit: What is asked of it.
        weight: Weight of its update.
        procedure: Number of what is done.
        stream: Its batches, packed; ``None`` where they are known.
        memory: What it has kept.
    """

    worker: str
    visit: Visit
    weight: float
    procedure: int
    stream: bytes | None
    memory: WorkerMemory


@dataclass(frozen=True)
class Portion:
    """Make some visits, and take the means of pieces of them.

    Args:
        number: Which of the round's portions it is.
        slots: Where the mean of each piece goes.
        pieces: The visits of each, in order.
    """

    number: int
    slots: Sequence[int]
    pieces: Sequence[Sequence[Job]]


@dataclass(frozen=True)
class Failure:
    """Why a visit has failed.

    Args:
        step: The local step, if it was in one.
        error: What was raised.
        text: With the text of its stack.
    """

    step: int | None
    error: Exception
    text: str


@dataclass(frozen=True)
class Outcome:
    """What a visit has come to.

    Args:
        report: Its report; ``None`` where it has failed.
        memory: What it leaves at its worker; ``None`` for nothing.
        outgoing: What an algorithm sends beside the update.
        settings: Those of the optimizers at its end, if they were asked for.
        failure: Why it has failed.
    """

    report: VisitReport | None = None
    memory: WorkerMemory | None = None
    outgoing: Outline = field(default_factory=dict)
    settings: Any = None
    failure: Failure | None = None


@dataclass(frozen=True)
class Mean:
    """The mean of what the visits of a piece have come to, which is in its slot.

    Args:
        count: Updates that are in it.
        weight: Theirs.
        extras: The mean of what an algorithm sends beside them.
    """

    count: int
    weight: float
    extras: Mapping[str, Sequence[torch.Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """A portion is done.

    Args:
        number: Which one.
        pieces: Of each piece, what its visits have come to, and the mean of it.
        changed: What of the module a visit has changed beside tensors and metrics; usually nothing.
    """

    number: int
    pieces: Sequence[tuple[Sequence[Outcome], Mean]]
    changed: str = ""


@dataclass(frozen=True)
class Way:
    """How visits are carried out together; arguments as of `VectorisedTraining`.

    Args:
        chunk: The most visits that lie beside each other.
        numbered: Whether ``training_step`` looks at the number of a batch.
        draws: Whether it draws random numbers.
        compiled: Whether steps are compiled.
        limit: The most seconds that a step may take of each worker; ``None`` for any.
    """

    chunk: int
    numbered: bool
    draws: bool
    compiled: bool
    limit: float | None = None


@dataclass(frozen=True)
class Cohort:
    """Know the visits of a round to workers of whom nothing is made.

    Args:
        errands: The visits.
        weights: Weights of their updates.
        way: How those of a piece are carried out together; ``None`` to make one after the other.
        skips: Kinds of failures that the round survives.
    """

    errands: PooledErrands
    weights: Sequence[float]
    way: Way | None
    skips: frozenset[FailureKind]


@dataclass(frozen=True)
class Foretold:
    """Get ready for visits of a round to come, made one after the other, when there is nothing else to do.

    Args:
        errands: The visits.
    """

    errands: PooledErrands


@dataclass(frozen=True)
class AsForetold:
    """Know that the visits of the round are those that were foretold last.

    Args:
        weights: As of `Cohort`.
        skips: Likewise.
    """

    weights: Sequence[float]
    skips: frozenset[FailureKind]


@dataclass(frozen=True)
class Columns:
    """Make some visits of the cohort, and take the means of pieces of them.

    Args:
        number: Which of the round's portions it is.
        slots: Where the mean of each piece goes.
        sizes: How many visits each piece has.
        visits: Their positions in the cohort.
        claimed: Whether all processes have got this message, and take the pieces for themselves.
    """

    number: int
    slots: Sequence[int]
    sizes: Sequence[int]
    visits: Numbers
    claimed: bool = False


@dataclass(frozen=True)
class ColumnsDone:
    """Visits in columns are done.

    Args:
        number: Which portion.
        means: Those of its pieces, in order.
        reports: Positions of visits in the cohort, and what these report.
        metrics: States of torchmetrics, by position of the visit.
        failures: Why visits have failed, by position; ``None`` for one that is not finite.
        changed: What of the module a visit has changed beside tensors and metrics; usually nothing.
        why_not: Why visits cannot be carried out together; then none of them counts.
        why_not_compiled: Why steps are not compiled.
        pieces: Which pieces these are, where they are claimed: those that the process has taken.
    """

    number: int
    means: Sequence[Mean] = ()
    reports: Sequence[tuple[Numbers, ChunkReports]] = ()
    metrics: Mapping[int, tuple[MetricState, ...]] = field(default_factory=dict)
    failures: Mapping[int, Failure | None] = field(default_factory=dict)
    changed: str = ""
    why_not: str = ""
    why_not_compiled: str = ""
    pieces: Sequence[int] = ()


@dataclass(frozen=True)
class Several:
    """Take in several messages, one after the other.

    Args:
        messages: They, packed.
    """

    messages: Sequence[bytes]


@dataclass(frozen=True)
class Broken:
    """Something failed that is no visit.

    Args:
        text: With the text of its stack.
    """

    text: str


@dataclass(frozen=True)
class Forget:
    """The fit is over: let go of everything."""


def torch_settings() -> Mapping[str, Any]:
    """Return what of torch's settings in this process decides what a step computes."""
    return {
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
    }


def apply_torch_settings(settings: Mapping[str, Any]) -> None:
    """Let torch compute in this process as it does at the controller."""
    torch.set_default_dtype(settings["dtype"])
    torch.use_deterministic_algorithms(settings["deterministic"], warn_only=settings["warn_only"])
    torch.set_float32_matmul_precision(settings["matmul"])
