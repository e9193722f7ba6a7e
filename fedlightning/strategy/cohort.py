"""What the visits of a whole cohort come to, in columns: losses, logged values, bytes, who is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedlightning.local.logs import LoggedValue
from fedlightning.local.vectorised.logs import reduced
from fedlightning.local.vectorised.reports import ChunkReports, LogColumn
from fedlightning.strategy.visit_columns import Integers, Values, VisitColumns
from fedlightning.workers.payload import payload_bytes

_HALF = (torch.float16, torch.bfloat16)


class _Logged:
    """What a cohort has logged under one name."""

    def __init__(self, count: int) -> None:
        self.values: Values = np.full(count, np.nan)
        self.weights: Integers = np.zeros(count, dtype=np.int64)
        self.there: npt.NDArray[np.bool_] = np.zeros(count, dtype=np.bool_)
        self.last: LogColumn | None = None

    def take(self, column: LogColumn, numbers: Integers) -> None:
        self.values[numbers] = column.values.double().numpy()
        self.weights[numbers] = column.weight
        self.there[numbers] = True
        self.last = column

    @property
    def bytes_each(self) -> int:
        assert self.last is not None
        return payload_bytes((self.last.name, self.last.weight)) + self.last.values.element_size()

    def combined(self, chosen: npt.NDArray[np.bool_]) -> LoggedValue | None:
        last, there = self.last, self.there & chosen
        if last is None or not there.any():
            return None
        weights = self.weights[there].tolist()
        value = reduced(torch.from_numpy(self.values[there]).unsqueeze(1), weights, last.reduction)
        dtype = torch.float32 if last.values.dtype in _HALF and len(weights) > 1 else last.values.dtype
        single = value.reshape(()).to(dtype)
        return LoggedValue(last.name, single, None, sum(weights), last.reduction, last.settings)


@dataclass(frozen=True)
class Terms:
    """What is known of a cohort's visits before they begin.

    Args:
        round: Number of the round.
        workers: Names of the workers.
        samples: Numbers of their samples.
        weights: Theirs in the average.
    """

    round: int
    workers: tuple[str, ...]
    samples: Integers
    weights: Values


class CohortReports:
    """Collect what chunks of visits report, in the order of the plan.

    Args:
        terms: What is known before.

    Attributes:
        workers: Names of the workers.
        weights: Theirs in the average.
        finite: Whether each visit may be told, or has failed by not being finite.
        done: How many visits have reported.
    """

    def __init__(self, terms: Terms) -> None:
        count = len(terms.workers)
        self.workers = terms.workers
        self.weights = terms.weights.tolist()
        self._terms = terms
        self._losses: Tensor | None = None
        self._steps: Integers = np.zeros(count, dtype=np.int64)
        self._trained_on: Integers = np.zeros(count, dtype=np.int64)
        self._logged: dict[str, _Logged] = {}
        self.finite = np.ones(count, dtype=np.bool_)
        self.done = 0

    def take(self, numbers: Integers, reports: ChunkReports) -> None:
        """Take in the reports of a chunk.

        Args:
            numbers: Positions of its visits in the plan.
            reports: What they report.
        """
        if self._losses is None:
            self._losses = reports.losses.new_zeros(len(self._steps))
        self._losses[torch.from_numpy(numbers)] = reports.losses
        self._steps[numbers] = reports.steps
        self._trained_on[numbers] = reports.samples
        self.finite[numbers] = reports.finite
        for column in reports.logs:
            log = self._logged.setdefault(column.name, _Logged(len(self._steps)))
            log.take(column, numbers[column.rows])
        self.done += len(numbers)

    @cached_property
    def result_bytes(self) -> Integers:
        """What each report weighs, as `VisitReport` does."""
        assert self._losses is not None
        total = np.full(len(self._steps), self._losses.element_size(), dtype=np.int64)
        for log in self._logged.values():
            total += log.bytes_each * log.there
        return np.where(self.finite, total, 0)

    @property
    def loss(self) -> Tensor | None:
        """The mean training loss, weighted like the average; ``None`` where nobody is left."""
        if self._losses is None or not self.finite.any():
            return None
        weights = torch.from_numpy(np.where(self.finite, self._terms.weights, 0.0))
        losses = torch.where(torch.from_numpy(self.finite).to(self._losses.device), self._losses, 0)
        return (losses * (weights / weights.sum()).to(losses)).sum()

    @property
    def logs(self) -> tuple[LoggedValue, ...]:
        """What was logged, combined over the cohort."""
        combined = (log.combined(self.finite) for log in self._logged.values())
        return tuple(value for value in combined if value is not None)

    @property
    def samples(self) -> int:
        """Samples in the batches of all visits."""
        return int(self._trained_on[self.finite].sum())

    def visits(self, up: Integers, down: Integers) -> VisitColumns:
        """Return the records of the visits that have not failed.

        Args:
            up: Bytes that left each worker.
            down: Bytes that came to it.
        """
        assert self._losses is not None
        terms, kept = self._terms, self.finite
        whole = bool(kept.all())
        names: Sequence[str] = terms.workers
        metrics: Mapping[str, Values] = {name: log.values[kept] for name, log in self._logged.items()}
        return VisitColumns(
            round=terms.round,
            workers=terms.workers if whole else tuple(np.array(names, dtype=object)[kept]),
            samples=terms.samples[kept],
            steps=self._steps[kept],
            losses=self._losses.double().cpu().numpy()[kept],
            metrics=metrics,
            logged={name: log.there[kept] for name, log in self._logged.items()},
            bytes_up=up[kept],
            bytes_down=down[kept],
        )
