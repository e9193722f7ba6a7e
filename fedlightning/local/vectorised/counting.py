"""What the torchmetrics of a chunk's workers come to: calls that steps have noted, made when visits are over.

Metrics that look at each sample by itself count all batches of a worker in one update (``laid_together``);
and where nobody asks what those of each worker come to, all batches of all workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedlightning.local.metrics import (
    MetricState,
    kept_states,
    metrics_of,
    put_states,
    report_states,
    reset_metrics,
)
from fedlightning.local.vectorised.laid_together import CountedStep, LaidTogether, laid_together
from fedlightning.local.vectorised.refusal import NotBatchable
from fedlightning.workers.payload import payload_bytes

MOST_BYTES = 1 << 26
"""What metrics are given is kept up to so many bytes; then they count on the way."""

States = tuple[MetricState, ...]


@dataclass(frozen=True)
class ChunkMetrics:
    """States of the torchmetrics that a chunk's visits have updated.

    Args:
        of_each: Those of each visit, by its row.
        of_all: Those that all have in common.
        bytes_of_each: What each visit's part of the latter would weigh, shape ``(visits,)``.
    """

    of_each: Mapping[int, States] = field(default_factory=dict)
    of_all: States = ()
    bytes_of_each: npt.NDArray[np.int64] | int = 0

    @property
    def groups(self) -> tuple[States, ...]:
        """All of them, to be merged."""
        return (self.of_all, *self.of_each.values())


class ChunkCounts:
    """Count what the steps of a chunk have noted.

    Args:
        module: The module with the metrics, whose own states stay as they are.
        separately: Whether somebody asks what the metrics of each worker come to.
    """

    def __init__(self, module: nn.Module, *, separately: bool) -> None:
        self._module = module
        self._separately = separately
        self._steps: list[CountedStep] = []
        self._bytes = 0
        self._before: dict[int, States] = {}

    def note(self, step: CountedStep) -> None:
        """Take in the calls of a step.

        Args:
            step: The step.
        """
        self._steps.append(step)
        self._bytes += sum(tensor.nbytes for _, _, tensors in step.calls for tensor in tensors)
        if self._bytes > MOST_BYTES:
            workers = max(step.rows.stop for step in self._steps)
            with kept_states(self._module):
                self._before |= self._of_each(range(workers), laid_together(self._steps))
            self._steps, self._bytes = [], 0

    @property
    def has_any(self) -> bool:
        """Whether there is something to count."""
        return bool(self._steps or self._before)

    def metrics(self, finite: npt.NDArray[np.bool_]) -> ChunkMetrics:
        """Return what the metrics of the visits come to.

        Args:
            finite: Which visits count, shape ``(visits,)``.

        Raises:
            NotBatchable: The metrics are used in a way that has no meaning after the steps.
        """
        if not self.has_any:
            return ChunkMetrics()
        laid = laid_together(self._steps)
        as_one = not self._separately and not self._before
        with kept_states(self._module):
            common = self._of_all(finite, laid) if as_one else ((), 0)
            rows = np.flatnonzero(finite).tolist()
            return ChunkMetrics(self._of_each(rows, laid, as_one=as_one), *common)

    def _of_all(
        self, finite: npt.NDArray[np.bool_], laid: Sequence[LaidTogether]
    ) -> tuple[States, npt.NDArray[np.int64]]:
        """Count what has been laid together once for all visits that count."""
        reset_metrics(self._module)
        rows_of: dict[int, npt.NDArray[np.bool_]] = {}
        for one in laid:
            rows = one.count_all(finite)
            for part in one.call.parts:
                rows_of[id(part)] = rows_of.get(id(part), False) | rows
        paths = {path: id(metric) for path, metric in metrics_of(self._module)}
        states, weights = report_states(self._module), np.zeros(len(finite), dtype=np.int64)
        for state in states:
            weights[rows_of[paths[state.path]]] += payload_bytes(state.values)
        return states, weights

    def _of_each(
        self, rows: Iterable[int], laid: Sequence[LaidTogether], *, as_one: bool = False
    ) -> dict[int, States]:
        """Count for one visit after the other, but for what is laid together and has been counted as one."""
        done = {id(one.call.metric) for one in laid}
        left = [step.without(done) for step in self._steps]
        left = [step for step in left if step.calls]
        if as_one and not left:
            return {}
        found = {}
        for row in rows:
            reset_metrics(self._module)
            if row in self._before:
                put_states(self._module, self._before[row])
            for one in () if as_one else laid:
                one.count(row)
            for step in left:
                if step.rows.start <= row < step.rows.stop:
                    _count(step, row - step.rows.start)
            if states := report_states(self._module):
                found[row] = states
        return found


def _count(step: CountedStep, row: int) -> None:
    """Make the calls of a step for one of its workers."""
    for number, call, tensors in step.calls:
        value = call.make([tensor[row] for tensor in tensors])
        for place in step.values.get(number, ()):
            place[row] = _as_number(value)


def _as_number(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise NotBatchable("a torchmetric's value on a batch is logged that is not a single number")
    if value.is_floating_point() and value.dtype != torch.get_default_dtype():
        raise NotBatchable(f"a torchmetric's value on a batch is logged that is {value.dtype}")
    return value.detach().reshape(())
