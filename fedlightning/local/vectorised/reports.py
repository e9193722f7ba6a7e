"""What the visits of a chunk report, in columns: a report of one of them is made when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.local.logs import LoggedValue
from fedlightning.local.vectorised.counting import ChunkMetrics
from fedlightning.local.visit import VisitReport


@dataclass(frozen=True)
class LogColumn:
    """What some workers of a chunk have logged under one name, combined over their steps.

    Args:
        name: The name.
        rows: Which workers: their numbers, in order.
        values: Theirs, shape ``(workers,)``, in the type in which one would be reported; ``None`` of a
            torchmetric.
        weights: Number of samples behind each.
        reduction: How values are combined, as of `LoggedValue`.
        settings: The other arguments of ``self.log``.
        metric: As of `LoggedValue`.
    """

    name: str
    rows: npt.NDArray[np.int64]
    values: Tensor | None
    weights: npt.NDArray[np.int64]
    reduction: str
    settings: Mapping[str, Any]
    metric: str | None = None

    @cached_property
    def by_row(self) -> Mapping[int, LoggedValue]:
        """What each of the workers has logged."""
        values = [None] * len(self.rows) if self.values is None else self.values.unbind()
        return {
            row: LoggedValue(self.name, value, self.metric, weight, self.reduction, self.settings)
            for row, value, weight in zip(self.rows.tolist(), values, self.weights.tolist(), strict=True)
        }


@dataclass(frozen=True)
class ChunkReports(Sequence[VisitReport]):
    """The reports of the visits of a chunk.

    Args:
        steps: Local steps of each, shape ``(visits,)``.
        losses: Mean training losses over the steps, shape ``(visits,)``.
        samples: Samples in the batches of each, shape ``(visits,)``.
        finite: Whether each may be told, or has failed by not being finite.
        logs: What was logged.
        told: Whether each has a loss; ``None`` where all have.
        metrics: What torchmetrics have counted, where that is not told in another way.
    """

    steps: npt.NDArray[np.int64]
    losses: Tensor
    samples: npt.NDArray[np.int64]
    finite: npt.NDArray[np.bool_]
    logs: Sequence[LogColumn]
    told: npt.NDArray[np.bool_] | None = None
    metrics: ChunkMetrics = field(default_factory=ChunkMetrics)

    @override
    def __len__(self) -> int:
        return len(self.steps)

    @overload
    def __getitem__(self, index: int) -> VisitReport: ...
    @overload
    def __getitem__(self, index: slice) -> list[VisitReport]: ...
    @override
    def __getitem__(self, index: int | slice) -> VisitReport | list[VisitReport]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        steps = int(self.steps[index])
        if not self.finite[index]:
            return VisitReport(steps, None, (), (), failed=True)
        logs = tuple(log.by_row[index] for log in self.logs if index in log.by_row)
        metrics = self.metrics.of_each.get(index, ())
        return VisitReport(steps, self._each_loss[index], logs, metrics, samples=int(self.samples[index]))

    @cached_property
    def _each_loss(self) -> tuple[Tensor, ...]:
        return self.losses.unbind()


class Outcome:
    """What the steps of a chunk come to, worker by worker.

    Args:
        steps: Of each visit; longer ones first.
    """

    def __init__(self, steps: npt.NDArray[np.int64]) -> None:
        self._steps = steps
        self._told: list[tuple[int, slice, Tensor, int]] = []

    def note(self, step: int, rows: slice, losses: Tensor, samples: int) -> None:
        """Keep what some of the workers report of a step.

        Args:
            step: Counted from 0 at the start of the visits.
            rows: Which workers.
            losses: Theirs, shape ``(workers,)``; nobody writes to them later on.
            samples: How many samples each has trained on.
        """
        self._told.append((step, rows, losses, samples))

    def reports(
        self, logs: Sequence[LogColumn], finite: npt.NDArray[np.bool_], metrics: ChunkMetrics
    ) -> ChunkReports:
        """Return what the workers report.

        Args:
            logs: What they have logged.
            finite: Whether each may be told, or has failed by not being finite.
            metrics: What their torchmetrics have counted.
        """
        losses, samples = self._by_step(), np.zeros(len(self._steps), dtype=np.int64)
        for _, rows, _, more in self._told:
            samples[rows] += more
        return ChunkReports(self._steps, self._means(losses), samples, finite, logs, metrics=metrics)

    def _means(self, losses: Tensor) -> Tensor:
        if self._steps[-1] == self._steps[0]:
            return losses.mean(0)
        edges = [0, *(np.flatnonzero(np.diff(self._steps)) + 1).tolist(), len(self._steps)]
        return torch.cat(
            [losses[: int(self._steps[start]), start:stop].mean(0) for start, stop in pairwise(edges)]
        )

    def _by_step(self) -> Tensor:
        """Return all losses, shape ``(steps of the longest visit, visits)``."""
        if len(self._told) == int(self._steps[0]) and self._steps[-1] == self._steps[0]:
            return torch.stack([losses for _, _, losses, _ in self._told])
        together = self._told[0][2].new_empty(int(self._steps[0]), len(self._steps))
        for step, rows, losses, _ in self._told:
            together[step, rows] = losses
        return together
