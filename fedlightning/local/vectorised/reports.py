"""What the visits of a chunk report, in columns: a report of one of them is made when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.local.logs import LoggedValue
from fedlightning.local.visit import VisitReport


@dataclass(frozen=True)
class LogColumn:
    """What some workers of a chunk have logged under one name, combined over their steps.

    Args:
        name: The name.
        rows: Which workers.
        values: Theirs, shape ``(workers,)``, in the type in which one would be reported.
        weight: Number of samples behind each.
        reduction: How values are combined, as of `LoggedValue`.
        settings: The other arguments of ``self.log``.
    """

    name: str
    rows: slice
    values: Tensor
    weight: int
    reduction: str
    settings: Mapping[str, Any]

    @cached_property
    def _each(self) -> tuple[Tensor, ...]:
        return self.values.unbind()

    def of(self, row: int) -> LoggedValue:
        """Return what one of the workers has logged."""
        value = self._each[row - self.rows.start]
        return LoggedValue(self.name, value, None, self.weight, self.reduction, self.settings)


@dataclass(frozen=True)
class ChunkReports(Sequence[VisitReport]):
    """The reports of the visits of a chunk.

    Args:
        steps: Local steps of each, shape ``(visits,)``.
        losses: Mean training losses over the steps, shape ``(visits,)``.
        samples: Samples in the batches of each, shape ``(visits,)``.
        finite: Whether each may be told, or has failed by not being finite.
        logs: What was logged.
    """

    steps: npt.NDArray[np.int64]
    losses: Tensor
    samples: npt.NDArray[np.int64]
    finite: npt.NDArray[np.bool_]
    logs: Sequence[LogColumn]

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
        logs = tuple(log.of(index) for log in self.logs if log.rows.start <= index < log.rows.stop)
        return VisitReport(steps, self._each_loss[index], logs, (), samples=int(self.samples[index]))

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
        self._losses: Tensor | None = None
        self._samples = np.zeros(len(steps), dtype=np.int64)

    def note(self, step: int, rows: slice, losses: Tensor, samples: int) -> None:
        """Keep what some of the workers report of a step.

        Args:
            step: Counted from 0 at the start of the visits.
            rows: Which workers.
            losses: Theirs, shape ``(workers,)``.
            samples: How many samples each has trained on.
        """
        if self._losses is None:
            self._losses = losses.new_empty(int(self._steps[0]), len(self._steps))
        self._losses[step, rows] = losses
        self._samples[rows] += samples

    def reports(self, logs: Sequence[LogColumn], finite: npt.NDArray[np.bool_]) -> ChunkReports:
        """Return what the workers report.

        Args:
            logs: What they have logged.
            finite: Whether each may be told, or has failed by not being finite.
        """
        assert self._losses is not None
        edges = [0, *(np.flatnonzero(np.diff(self._steps)) + 1).tolist(), len(self._steps)]
        means = [
            self._losses[: int(self._steps[start]), start:stop].mean(0) for start, stop in pairwise(edges)
        ]
        return ChunkReports(self._steps, torch.cat(means), self._samples, finite, logs)
