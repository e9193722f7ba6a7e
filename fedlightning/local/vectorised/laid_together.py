"""Batches that one update of a torchmetric counts, laid one behind the other.

Which metrics that may be done with is in ``local.additive``; who counts what, in ``counting``.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedlightning.local.additive import adds_up
from fedlightning.local.vectorised.metric_calls import MetricCall
from fedlightning.local.vectorised.refusal import NotBatchable

NumberedCall: TypeAlias = tuple[int, MetricCall, Sequence[Tensor]]
"""A call, its number in the step, and what it was given, each of shape ``(workers, ...)``."""


@dataclass(frozen=True, eq=False)
class CountedStep:
    """The calls of torchmetrics in a step.

    Args:
        rows: Which workers have taken it.
        calls: The calls.
        values: Where values on single batches go, each of shape ``(workers,)``, by the number of the call.
    """

    rows: slice
    calls: Sequence[NumberedCall]
    values: Mapping[int, Sequence[Tensor]]

    @classmethod
    def of(
        cls,
        rows: slice,
        calls: Sequence[MetricCall],
        tensors: Sequence[Tensor],
        values: Mapping[int, Sequence[Tensor]],
    ) -> CountedStep:
        """Return a step whose calls were given some tensors, those of one call after those of another."""
        spans = pairwise(accumulate((call.tensors for call in calls), initial=0))
        numbered = zip(range(len(calls)), calls, (tensors[slice(*span)] for span in spans), strict=True)
        return cls(rows, list(numbered), values)

    def without(self, metrics: Collection[int]) -> CountedStep:
        """Return the same step without the calls of some metrics, by their ``id``."""
        return replace(self, calls=[one for one in self.calls if id(one[1].metric) not in metrics])


class LaidTogether:
    """The calls of a metric that differ in tensors only.

    Args:
        call: One of them.
    """

    def __init__(self, call: MetricCall) -> None:
        self.call = call
        self._batches: dict[tuple[int, int, int], list[Sequence[Tensor]]] = {}
        self._stacked: list[tuple[slice, list[Tensor]]] = []

    def add(self, rows: slice, tensors: Sequence[Tensor]) -> None:
        """Take in what a call was given.

        Args:
            rows: By which workers.
            tensors: Each of shape ``(workers, ...)``.
        """
        size = tensors[0].shape[1] if tensors[0].dim() > 1 else 1
        self._batches.setdefault((rows.start, rows.stop, size), []).append(tensors)

    def count(self, row: int) -> None:
        """Update the metric with the batches of one worker.

        Args:
            row: Which worker.
        """
        chosen = [
            [tensor[row - rows.start].unsqueeze(0) for tensor in tensors]
            for rows, tensors in self._stacks()
            if rows.start <= row < rows.stop
        ]
        self._count(chosen)

    def count_all(self, finite: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Update the metric with the batches of all workers that count, and return who has any.

        Args:
            finite: Which workers count, shape ``(workers,)``.
        """
        found, chosen = np.zeros_like(finite), []
        for rows, tensors in self._stacks():
            found[rows] |= finite[rows]
            if finite[rows].any():
                own = torch.from_numpy(finite[rows]).to(tensors[0].device)
                chosen.append(tensors if own.all() else [tensor[own] for tensor in tensors])
        self._count(chosen)
        return found

    def _count(self, chosen: Sequence[Sequence[Tensor]]) -> None:
        """Update the metric once with batches of shape ``(workers, steps, ...)``."""
        if not chosen:
            return
        columns = [torch.cat([_in_a_row(own) for own in column]) for column in zip(*chosen, strict=True)]
        self.call.make(columns, "update")
        batches = sum(tensors[0].shape[:2].numel() for tensors in chosen)
        for part in self.call.parts:
            part._update_count += batches - 1

    def _stacks(self) -> list[tuple[slice, list[Tensor]]]:
        if not self._stacked:
            self._stacked = [
                (slice(start, stop), [torch.stack(column, 1) for column in zip(*batches, strict=True)])
                for (start, stop, _), batches in self._batches.items()
            ]
        return self._stacked


def laid_together(steps: Sequence[CountedStep]) -> list[LaidTogether]:
    """Lay together what metrics were given that count all of it in one update.

    Args:
        steps: The steps, in order.

    Returns:
        One for each metric and kind of call.

    Raises:
        NotBatchable: A metric is updated by itself and in a collection, which keeps one state for several.
    """
    first = {id(call.metric): call for step in steps for _, call, _ in step.calls}
    _require_one_owner(first.values())
    left = {key for key, call in first.items() if all(map(adds_up, call.parts))}
    for step in steps:
        for number, call, tensors in step.calls:
            # What one batch comes to is asked, or it is not known what lies behind what.
            if number in step.values or not _are_rows(tensors):
                left.discard(id(call.metric))
    found: dict[Hashable, LaidTogether] = {}
    for step in steps:
        for _, call, tensors in step.calls:
            if id(call.metric) in left:
                kind = call.kind, tuple((tensor.shape[2:], tensor.dtype) for tensor in tensors)
                found.setdefault(kind, LaidTogether(call)).add(step.rows, tensors)
    return list(found.values())


def _require_one_owner(calls: Iterable[MetricCall]) -> None:
    seen: set[int] = set()
    for call in calls:
        own = {id(part) for part in call.parts}
        if own & seen:
            raise NotBatchable("training_step updates a torchmetric both by itself and inside another")
        seen |= own


def _are_rows(tensors: Sequence[Tensor]) -> bool:
    """Tell whether tensors of shape ``(workers, ...)`` have a number each, or a row for each sample."""
    sizes = {tensor.shape[1] if tensor.dim() > 1 else None for tensor in tensors}
    return len(sizes) == 1


def _in_a_row(tensor: Tensor) -> Tensor:
    """Lay what has the shape ``(workers, steps)``, or ``(workers, steps, samples, ...)``, in a row."""
    return tensor.flatten(0, 2) if tensor.dim() > 2 else tensor.flatten()
