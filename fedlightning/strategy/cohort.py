"""What the visits of a whole cohort come to, in columns: losses, logged values, bytes, who is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedlightning.local.logs import LoggedValue
from fedlightning.local.metrics import MetricState
from fedlightning.local.series import LONGEST, Series, reduced_rows
from fedlightning.local.vectorised.reports import ChunkReports, LogColumn
from fedlightning.strategy.records import VisitRecord
from fedlightning.strategy.visit_columns import Integers, Values, VisitColumns
from fedlightning.workers.payload import payload_bytes

_HALF = (torch.float16, torch.bfloat16)


class _Logged:
    """What a cohort has logged under one name."""

    def __init__(self, count: int) -> None:
        self.values: Values = np.full(count, np.nan)
        self.weights: Integers = np.zeros(count, dtype=np.int64)
        self.bytes: Integers = np.zeros(count, dtype=np.int64)
        self.there: npt.NDArray[np.bool_] = np.zeros(count, dtype=np.bool_)
        self.has_value: npt.NDArray[np.bool_] = np.zeros(count, dtype=np.bool_)
        self.last: LogColumn | None = None

    def take(self, column: LogColumn, numbers: Integers) -> None:
        size = payload_bytes((column.name, 0))
        if column.values is not None:
            self.values[numbers] = column.values.double().numpy()
            self.has_value[numbers] = True
            size += column.values.element_size()
        self.bytes[numbers] = size
        self.weights[numbers] = column.weights
        self.there[numbers] = True
        self.last = column

    def combined(self, chosen: npt.NDArray[np.bool_]) -> LoggedValue | None:
        last, there = self.last, self.there & chosen
        if last is None or not there.any():
            return None
        weight = int(self.weights[there].sum())
        if last.values is None:
            return LoggedValue(last.name, None, last.metric, weight, last.reduction, last.settings)
        dtype = torch.float32 if last.values.dtype in _HALF and there.sum() > 1 else last.values.dtype
        single = torch.tensor(self._reduced(there & self.has_value, last.reduction), dtype=dtype)
        return LoggedValue(last.name, single, None, weight, last.reduction, last.settings)

    def _reduced(self, chosen: npt.NDArray[np.bool_], reduction: str) -> float:
        """Combine values as `combine_logs` does, to the bit."""
        values, weights = self.values[chosen], self.weights[chosen]
        if len(values) <= LONGEST:
            return float(reduced_rows(values[None], weights[None], reduction)[0])
        series = Series(reduction)
        for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
            series.add(value, weight)
        return float(series.reduced())


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
        finite: Whether each visit may be told, or has failed, as by not being finite.
        done: How many visits have reported.
        metrics: States of the torchmetrics that single visits have updated, by position.
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
        self._told: npt.NDArray[np.bool_] = np.ones(count, dtype=np.bool_)
        self.finite: npt.NDArray[np.bool_] = np.ones(count, dtype=np.bool_)
        self.metrics: dict[int, tuple[MetricState, ...]] = {}
        self._common_metrics: list[tuple[MetricState, ...]] = []
        self._common_bytes: Integers = np.zeros(count, dtype=np.int64)
        self.done = 0

    def take(self, numbers: Integers, reports: ChunkReports) -> None:
        """Take in the reports of a chunk.

        Args:
            numbers: Positions of its visits in the plan.
            reports: What they report.
        """
        self._take_losses(numbers, reports)
        self._steps[numbers] = reports.steps
        self._trained_on[numbers] = reports.samples
        self.finite[numbers] = reports.finite
        for column in reports.logs:
            log = self._logged.setdefault(column.name, _Logged(len(self._steps)))
            log.take(column, numbers[column.rows])
        for row, states in reports.metrics.of_each.items():
            self.metrics[int(numbers[row])] = states
        if reports.metrics.of_all:
            self._common_metrics.append(reports.metrics.of_all)
            self._common_bytes[numbers] = reports.metrics.bytes_of_each
        self.done += len(numbers)

    def _take_losses(self, numbers: Integers, reports: ChunkReports) -> None:
        if reports.told is not None:
            self._told[numbers] = reports.told
            if not reports.told.any():
                return  # where nobody has a loss, it is of no type
        losses = reports.losses
        if self._losses is None:
            self._losses = losses.new_zeros(len(self._steps))
        self._losses = self._losses.to(torch.promote_types(self._losses.dtype, losses.dtype))
        self._losses[torch.from_numpy(numbers)] = losses.to(self._losses.dtype)

    def leave_out(self, numbers: Iterable[int]) -> None:
        """Take note of visits that have failed.

        Args:
            numbers: Their positions.
        """
        self.finite[list(numbers)] = False

    @property
    def groups_of_metrics(self) -> tuple[tuple[MetricState, ...], ...]:
        """The states of torchmetrics that visits have in common, and those of single ones, to be merged."""
        if not self.metrics:
            return tuple(self._common_metrics)
        of_each = (self.metrics.get(number, ()) for number in np.flatnonzero(self.finite).tolist())
        return (*self._common_metrics, *of_each)

    def take_values(self, number: int, values: Mapping[str, float]) -> None:
        """Take in what a visit's torchmetrics have come to.

        Args:
            number: Position of the visit.
            values: By the metric's path.
        """
        for log in self._logged.values():
            value = None if log.last is None else values.get(log.last.metric or "")
            if value is not None and log.there[number]:
                log.values[number], log.has_value[number] = value, True

    @property
    def result_bytes(self) -> Integers:
        """What each report weighs, as `VisitReport` does."""
        total = self._common_bytes.copy()
        if self._losses is not None:
            total[self._told] += self._losses.element_size()
        for log in self._logged.values():
            total += log.bytes
        for number, states in self.metrics.items():
            total[number] += sum(payload_bytes(state.values) for state in states)
        return np.where(self.finite, total, 0)

    @property
    def loss(self) -> Tensor | None:
        """The mean training loss, weighted like the average; ``None`` where nobody who is left has one."""
        kept = self.finite & self._told
        if self._losses is None or not kept.any():
            return None
        losses = self._losses if kept.all() else self._losses[torch.from_numpy(kept)]
        if len(losses) == 1:
            return losses[0]
        weights = torch.from_numpy(self._terms.weights[kept])
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

    def visits(self, up: Integers, down: Integers) -> Sequence[VisitRecord]:
        """Return the records of the visits that have not failed.

        Args:
            up: Bytes that left each worker.
            down: Bytes that came to it.
        """
        terms, kept = self._terms, self.finite
        whole = bool(kept.all())
        names: Sequence[str] = terms.workers
        losses = np.full(len(names), np.nan) if self._losses is None else self._losses.double().cpu().numpy()
        valued = {name: log for name, log in self._logged.items() if log.has_value[kept].any()}
        columns = VisitColumns(
            round=terms.round,
            workers=terms.workers if whole else tuple(np.array(names, dtype=object)[kept]),
            samples=terms.samples[kept],
            steps=self._steps[kept],
            losses=losses[kept],
            metrics={name: log.values[kept] for name, log in valued.items()},
            logged={name: log.has_value[kept] for name, log in valued.items()},
            bytes_up=up[kept],
            bytes_down=down[kept],
        )
        told = self._told[kept]
        if told.all():
            return columns
        return tuple(
            record if has_loss else replace(record, loss=None)
            for record, has_loss in zip(columns, told.tolist(), strict=True)
        )
