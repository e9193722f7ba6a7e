"""``self.log`` over several visits, one after the other: values are kept in columns, combined at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from fedlightning.local.logs import Asked, Log, LogRecorder, dtype_of, scalar
from fedlightning.local.series import LONGEST, Series, reduced_rows
from fedlightning.local.vectorised.chunks import Numbers
from fedlightning.local.vectorised.reports import LogColumn

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class _Alike:
    """What visits come to that have given as many numbers each."""

    visits: Numbers
    count: int
    values: npt.NDArray[np.float64]
    weights: Numbers


class VisitSeries(Series):
    """Collect numbers with weights, visit by visit.

    Args:
        reduction: As of `Series`.
    """

    __slots__ = ("_counts", "_ended", "_visits")

    def __init__(self, reduction: str) -> None:
        super().__init__(reduction)
        self._ended = 0
        self._visits: list[int] = []
        self._counts: list[int] = []

    @property
    def is_between_visits(self) -> bool:
        """Whether the visit at hand has given nothing yet."""
        return len(self._values) == self._ended

    @override
    def add(self, value: float | Tensor, weight: int) -> None:
        if len(self._values) - self._ended >= LONGEST:
            self._fold()
        self._values.append(value)
        self._weights.append(weight)

    def end_visit(self, number: int) -> None:
        """Keep what the visit at hand has given.

        Args:
            number: Its position.
        """
        count = len(self._values) - self._ended
        if count:
            self._visits.append(number)
            self._counts.append(count)
            self._ended += count

    def drop_visit(self) -> None:
        """Forget what the visit at hand has given."""
        del self._values[self._ended :]
        del self._weights[self._ended :]

    def forget(self) -> None:
        """Forget all that visits have given."""
        for numbers in (self._values, self._weights, self._visits, self._counts):
            numbers.clear()
        self._ended = 0

    def moved_on(self, reduction: str) -> VisitSeries:
        """Return a series that the visit at hand goes on with, and leave to this one those before."""
        other = VisitSeries(reduction)
        other._values, other._weights = self._values[self._ended :], self._weights[self._ended :]
        self.drop_visit()
        return other

    def combined_by_visit(self) -> Iterator[_Alike]:
        """Yield what visits have come to; those like the last one come last."""
        counts, visits = np.array(self._counts, dtype=np.int64), np.array(self._visits, dtype=np.int64)
        values, weights = np.array(self._values, dtype=np.float64), np.array(self._weights, dtype=np.int64)
        starts = counts.cumsum() - counts
        for count in sorted(set(self._counts), key=lambda count: count == self._counts[-1]):
            alike = counts == count
            places = starts[alike][:, None] + np.arange(count)
            own = weights[places]
            combined = reduced_rows(values[places], own, self.reduction)
            yield _Alike(visits[alike], count, combined, own.sum(1))

    def _fold(self) -> None:
        values, weights = self._values[self._ended :], self._weights[self._ended :]
        self.drop_visit()
        folded = Series(self.reduction)
        for value, weight in zip(values, weights, strict=True):
            folded.add(value, weight)
        self._values.append(folded.reduced())
        self._weights.append(folded.weight)


@dataclass(frozen=True)
class LogCall:
    """A call of ``self.log`` as it was made.

    Args:
        name: Of what is logged.
        value: What is logged.
        args: What else was given by position.
        settings: What was given by name.
    """

    name: str
    value: Any
    args: tuple[Any, ...]
    settings: dict[str, Any]


@dataclass(frozen=True)
class _Call:
    """A call of ``self.log`` with a tensor, and where its value went."""

    args: tuple[Any, ...]
    settings: dict[str, Any]
    dtype: torch.dtype
    series: VisitSeries


class VisitLogs(LogRecorder):
    """Stand in for ``LightningModule.log`` during visits.

    Args:
        module: The module whose ``self.log`` calls are recorded.
    """

    def __init__(self, module: pl.LightningModule) -> None:
        super().__init__(module)
        self._current: dict[str, VisitSeries] = {}
        self._rows = 0
        self._last: dict[str, _Call] = {}
        # Of each name one for each time that settings, or the kind of values, have changed.
        self._accounts: dict[str, list[tuple[Log, VisitSeries]]] = {}
        self._note_call: Callable[[LogCall], None] | None = None
        self._records = True

    @contextmanager
    def told_to(self, note: Callable[[LogCall], None], *, records: bool = False) -> Iterator[None]:
        """Let somebody else know of calls within the block.

        Args:
            note: Is given each call.
            records: Whether they are recorded here as well.
        """
        self._note_call, self._records = note, records
        try:
            yield
        finally:
            self._note_call, self._records = None, True

    def start_step_of(self, batch: Any, size: int) -> None:
        """Note the batch of the coming step, as `start_step` does, where its size is known."""
        self._batch = batch
        self._batch_size = self._rows = size
        self.samples += size

    @override
    def log(self, name: str, value: Any, *args: Any, batch_size: int | None = None, **settings: Any) -> None:
        """Record a value; as in `LogRecorder`."""
        if self._note_call is not None:
            self._note_call(LogCall(name, value, args, {"batch_size": batch_size, **settings}))
            if not self._records:
                return
        last = self._last.get(name)
        # Most calls are like the one before but for the value.
        if (
            last is not None
            and type(value) is Tensor
            and value.dtype is last.dtype
            and args == last.args
            and settings == last.settings
            and value.numel() == 1
        ):
            last.series.add(value.item(), self._rows if batch_size is None else batch_size)
            return
        super().log(name, value, *args, batch_size=batch_size, **settings)
        self._last.pop(name, None)
        log = self._logs[name]
        if log.source is None and type(value) is Tensor:
            self._last[name] = _Call(args, settings, log.dtype, self._current[name])

    def end_visit(self, number: int) -> None:
        """Keep what the visit at hand has logged.

        Args:
            number: Its position.
        """
        for series in self._current.values():
            series.end_visit(number)

    def drop_visit(self) -> None:
        """Forget what the visit at hand has logged."""
        for series in self._current.values():
            series.drop_visit()

    def take_columns(self) -> list[LogColumn]:
        """Return what visits have logged, combined over their steps, and forget it."""
        columns = [
            _column(name, log, alike)
            for name, accounts in self._accounts.items()
            for log, series in accounts
            for alike in series.combined_by_visit()
        ]
        for accounts in self._accounts.values():
            for _, series in accounts:
                series.forget()
        return columns

    @override
    def _series(self, name: str, reduction: str) -> VisitSeries:
        current = self._current.get(name)
        series = VisitSeries(reduction) if current is None else current.moved_on(reduction)
        self._current[name] = series
        return series

    @override
    def _opened(self, name: str, value: Any, asked: Asked, metric: Metric | None) -> Log:
        log = super()._opened(name, value, asked, metric)
        self._accounts.setdefault(name, []).append((log, self._current[name]))
        return log

    @override
    def _note(self, log: Log, name: str, value: Any, weight: int) -> None:
        if type(value) is not Tensor or value.dtype is not log.dtype:
            log = self._suited(log, name, value)
        log.series.add(float(scalar(name, value)), weight)

    @override
    def _note_metric(self, log: Log) -> None:
        log.series.add(0.0, 0)

    def _suited(self, log: Log, name: str, value: Any) -> Log:
        """Return an account for values of another type: its first value decides for a visit."""
        if dtype_of(value) is not log.dtype and self._current[name].is_between_visits:
            log = self._logs[name] = self._opened(name, value, log.asked, None)
        return log


def _column(name: str, log: Log, alike: _Alike) -> LogColumn:
    values = None
    if log.source is None:
        half = log.dtype in _HALF and alike.count > 1
        values = torch.from_numpy(alike.values).to(torch.float32 if half else log.dtype)
    return LogColumn(
        name, alike.visits, values, alike.weights, log.series.reduction, log.settings, log.metric
    )
