"""``self.log`` in a batched step: one call logs a value of each worker. Torchmetrics count beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from fedlightning.local.logs import Log, LogRecorder
from fedlightning.local.vectorised.counting import ChunkCounts
from fedlightning.local.vectorised.laid_together import CountedStep
from fedlightning.local.vectorised.metric_calls import BatchValue, MetricCall, NotedCalls
from fedlightning.local.vectorised.refusal import NotBatchable
from fedlightning.local.vectorised.reports import LogColumn

Deferred: TypeAlias = Metric | BatchValue
"""What is logged without a number: its value shows when metrics have counted."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What one call has logged: a number for each of some workers, of any type; none for a torchmetric."""

    rows: slice
    values: Tensor | None
    weight: int


@dataclass(frozen=True, slots=True)
class _Repeated:
    """What is the same in all steps of a tape.

    Args:
        notes: Theirs.
        samples: Samples of a batch.
        calls: For each of their calls of ``self.log`` the name and weight.
    """

    notes: Notes
    samples: int
    calls: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True, eq=False)
class LogCall:
    """The arguments of a call of ``self.log``, but for the value, unless this is a stand-in."""

    name: str
    args: tuple[Any, ...]
    settings: dict[str, Any]
    deferred: Deferred | None


@dataclass(frozen=True, slots=True, eq=False)
class Notes:
    """What a step has noted, but for tensors.

    Args:
        logs: Its calls of ``self.log``.
        metrics: Its calls of torchmetrics.
    """

    logs: Sequence[LogCall] = ()
    metrics: Sequence[MetricCall] = ()

    @property
    def tensors(self) -> int:
        """How many tensors were noted beside."""
        logged = sum(call.deferred is None for call in self.logs)
        return logged + sum(call.tensors for call in self.metrics)


class ChunkLogs(LogRecorder):
    """Stand in for ``LightningModule.log`` and for torchmetrics during the visits of a chunk.

    Args:
        module: The module whose calls are recorded.
        separately: Whether somebody asks what the metrics of each worker come to.

    Attributes:
        notes: Those of the last step.
        counts: What metrics have been asked to count.
    """

    def __init__(self, module: pl.LightningModule, *, separately: bool = True) -> None:
        super().__init__(module)
        self.notes = Notes()
        self.counts = ChunkCounts(module, separately=separately)
        self._noted = NotedCalls(module)
        self._calls: list[LogCall] = []
        self._pending: list[tuple[str, Any, int]] = []
        self._entries: dict[str, list[_Entry]] = {}
        self._repeated: _Repeated | None = None

    @override
    def start_step(self, batch: Any) -> None:
        super().start_step(batch)
        self._calls = []
        self._noted.start_step()

    def noting(self) -> AbstractContextManager[None]:
        """Note within the block what torchmetrics are asked to count."""
        return self._noted.noting()

    @override
    def log(self, name: str, value: Any, *args: Any, **settings: Any) -> None:
        """Record a value; as in `LogRecorder`."""
        deferred = value if isinstance(value, Metric | BatchValue) else None
        self._calls.append(LogCall(name, args, settings, deferred))
        super().log(name, value, *args, **settings)

    def repeat(self, notes: Notes, batch: Any, rows: slice, values: Sequence[Tensor]) -> None:
        """Log and count as an earlier step did, with the tensors of another one.

        Args:
            notes: Those of the earlier one.
            batch: The batch of one of the workers; of the same shapes each time.
            rows: As for `keep`.
            values: As for `keep`; nobody writes to them later on.
        """
        if self._repeated is not None and self._repeated.notes is notes:
            self.samples += self._repeated.samples
            for (name, weight), value in zip(self._repeated.calls, values, strict=True):
                self._entries[name].append(_Entry(rows, value, weight))
            return
        before = self.samples
        self.start_step(batch)
        self._log_again(notes, values)
        calls = [(name, weight) for name, _, weight in self._pending]
        self.keep(rows, values)
        if not notes.metrics and all(call.deferred is None for call in notes.logs):
            self._repeated = _Repeated(notes, self.samples - before, calls)

    def _log_again(self, notes: Notes, values: Sequence[Tensor]) -> None:
        numbers = iter(values)
        for call in notes.logs:
            value = next(numbers) if call.deferred is None else call.deferred
            self.log(call.name, value, *call.args, **call.settings)
        self._noted.calls = list(notes.metrics)

    def take(self) -> list[Tensor]:
        """Return what the step at hand has logged, each of shape ``()``, and counted; called under vmap."""
        numbers = [
            _as_number(name, value)
            for name, value, _ in self._pending
            if not isinstance(value, Metric | BatchValue)
        ]
        return [*numbers, *self._noted.tensors()]

    def keep(self, rows: slice, values: Sequence[Tensor]) -> None:
        """Keep what a step has logged and counted.

        Args:
            rows: Which workers have taken it.
            values: What `take` returned, of all of them: each of shape ``(workers, ...)``. Nobody writes to
                them later on.
        """
        left, asked = iter(values), dict[int, list[Tensor]]()
        for name, value, weight in self._pending:
            numbers = None
            if isinstance(value, BatchValue):
                numbers = torch.full((rows.stop - rows.start,), torch.nan, dtype=torch.float64)
                asked.setdefault(value.number, []).append(numbers)
            elif not isinstance(value, Metric):
                numbers = next(left).detach()
            self._entries.setdefault(name, []).append(_Entry(rows, numbers, weight))
        self._pending.clear()
        self.notes = Notes(self._calls, self._noted.calls)
        if self._noted.calls:
            self.counts.note(CountedStep.of(rows, self._noted.calls, list(left), asked))

    def columns(self) -> list[LogColumn]:
        """Return what the workers have logged, combined over their steps."""
        return [
            self._combined(name, rows, shared)
            for name, entries in self._entries.items()
            for rows, shared in _shared(entries)
        ]

    @override
    def _note(self, log: Any, name: str, value: Any, weight: int) -> None:
        self._pending.append((name, value, weight))

    @override
    def _note_metric(self, log: Log) -> None:
        assert log.source is not None
        self._pending.append((self._calls[-1].name, log.source, 0))

    def _combined(self, name: str, rows: slice, entries: Sequence[_Entry]) -> LogColumn:
        log = self._logs[name]
        weights = [entry.weight for entry in entries]
        values = None if log.source is not None else _values_of(rows, entries, log)
        workers = np.arange(rows.start, rows.stop)
        every = np.full(len(workers), sum(weights))
        return LogColumn(name, workers, values, every, log.series.reduction, log.settings, log.metric)


def _values_of(rows: slice, entries: Sequence[_Entry], log: Log) -> Tensor:
    """Combine the numbers that some workers have logged under one name."""
    parts, weights = [], []
    for entry in entries:
        if entry.values is not None:
            before = entry.rows.start
            is_whole = entry.rows == rows
            parts.append(entry.values if is_whole else entry.values[rows.start - before : rows.stop - before])
            weights.append(entry.weight)
    if len({part.dtype for part in parts}) > 1:
        parts = [part.to(torch.float64) for part in parts]
    # As one: each conversion takes as long as that of all of them.
    numbers = torch.stack(parts).to("cpu", torch.float64)
    values = reduced(numbers, weights, log.series.reduction)
    half = log.dtype in (torch.float16, torch.bfloat16) and len(parts) > 1
    return values.to(torch.float32 if half else log.dtype)


def _shared(entries: Sequence[_Entry]) -> Iterator[tuple[slice, list[_Entry]]]:
    """Divide workers into those who have logged the same number of values in the same steps."""
    edges = sorted({edge for entry in entries for edge in (entry.rows.start, entry.rows.stop)})
    for start, stop in pairwise(edges):
        own = [entry for entry in entries if entry.rows.start <= start and stop <= entry.rows.stop]
        if own:
            yield slice(start, stop), own


def reduced(values: Tensor, weights: Sequence[int], reduction: str) -> Tensor:
    """Combine values as `series.Series` combines those of one worker.

    Args:
        values: Shape ``(calls, workers)``, float64, on the CPU.
        weights: Of each call.
        reduction: As of `LoggedValue`.

    Returns:
        Shape ``(workers,)``.
    """
    # In NumPy, whose calls take a third of the time of torch's.
    numbers = values.numpy()
    match reduction:
        case "sum":
            return torch.from_numpy(numbers.sum(0))
        case "max":
            return torch.from_numpy(numbers.max(0))
        case "min":
            return torch.from_numpy(numbers.min(0))
    first = numbers[0]
    shares = np.array(weights, dtype=np.float64)[:, None] / sum(weights)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = first + ((numbers - first) * shares).sum(0)
    return torch.from_numpy(np.where((numbers == first).all(0), first, mean))


def _as_number(name: str, value: Any) -> Tensor:
    tensor = torch.as_tensor(value)
    if tensor.numel() != 1:
        # The sequential path says what is wrong.
        raise NotBatchable(f"self.log({name!r}, ...) with a tensor of shape {tuple(tensor.shape)}")
    return tensor.detach().reshape(())
