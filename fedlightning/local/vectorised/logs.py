"""``self.log`` in a batched step: one call logs a value of each worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.local.logs import LogRecorder
from fedlightning.local.vectorised.refusal import NotBatchable
from fedlightning.local.vectorised.reports import LogColumn


@dataclass(frozen=True, slots=True)
class _Entry:
    """What one call has logged: a number for each of some workers, float64."""

    rows: slice
    values: Tensor
    weight: int


LogCall: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""The arguments of a call of ``self.log``, but for the value."""


class ChunkLogs(LogRecorder):
    """Stand in for ``LightningModule.log`` during the visits of a chunk.

    Args:
        module: The module whose ``self.log`` calls are recorded.

    Attributes:
        calls: Those of the last step.
    """

    def __init__(self, module: pl.LightningModule) -> None:
        super().__init__(module)
        self.calls: list[LogCall] = []
        self._pending: list[tuple[str, Any, int]] = []
        self._entries: dict[str, list[_Entry]] = {}

    @override
    def start_step(self, batch: Any) -> None:
        super().start_step(batch)
        self.calls = []

    @override
    def log(self, name: str, value: Any, *args: Any, **settings: Any) -> None:
        """Record a value; as in `LogRecorder`."""
        self.calls.append(((name, *args), settings))
        super().log(name, value, *args, **settings)

    def log_again(self, calls: Sequence[LogCall], values: Sequence[Tensor]) -> None:
        """Log as an earlier step did, with the values of a compiled one, each of shape ``(workers,)``."""
        for ((name, *args), settings), value in zip(calls, values, strict=True):
            self.log(name, value, *args, **settings)

    def take(self) -> list[Tensor]:
        """Return what the step at hand has logged, one tensor per call, shape ``()``; called under vmap."""
        for log in self._logs.values():
            if log.metric is not None:
                raise NotBatchable(f"self.log of the torchmetric {log.metric!r} in training_step")
        return [_as_number(name, value) for name, value, _ in self._pending]

    def keep(self, rows: slice, values: Sequence[Tensor]) -> None:
        """Keep what a step has logged.

        Args:
            rows: Which workers have taken it.
            values: What `take` returned, of all of them: each of shape ``(workers,)``.
        """
        for (name, _, weight), value in zip(self._pending, values, strict=True):
            entry = _Entry(rows, value.detach().to("cpu", torch.float64), weight)
            self._entries.setdefault(name, []).append(entry)
        self._pending.clear()

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

    def _combined(self, name: str, rows: slice, entries: Sequence[_Entry]) -> LogColumn:
        log = self._logs[name]
        weights = [entry.weight for entry in entries]
        parts = [
            entry.values[rows.start - entry.rows.start : rows.stop - entry.rows.start] for entry in entries
        ]
        values = reduced(torch.stack(parts), weights, log.series.reduction)
        half = log.dtype in (torch.float16, torch.bfloat16) and len(entries) > 1
        values = values.to(torch.float32 if half else log.dtype)
        workers = np.arange(rows.start, rows.stop)
        every = np.full(len(workers), sum(weights))
        return LogColumn(name, workers, values, every, log.series.reduction, log.settings)


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
        values: Shape ``(calls, workers)``, float64.
        weights: Of each call.
        reduction: As of `LoggedValue`.

    Returns:
        Shape ``(workers,)``.
    """
    match reduction:
        case "sum":
            return values.sum(0)
        case "max":
            return values.amax(0)
        case "min":
            return values.amin(0)
    first = values[0]
    shares = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    mean = first + ((values - first) * shares.unsqueeze(1)).sum(0)
    return torch.where((values == first).all(0), first, mean)


def _as_number(name: str, value: Any) -> Tensor:
    tensor = torch.as_tensor(value)
    if tensor.numel() != 1:
        # The sequential path says what is wrong.
        raise NotBatchable(f"self.log({name!r}, ...) with a tensor of shape {tuple(tensor.shape)}")
    return tensor.detach().reshape(())
