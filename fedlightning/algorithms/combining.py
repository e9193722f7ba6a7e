"""How the updates of a round are collected for a rule that must see all of them at once.

Memory grows with the cohort: that is the price of such rules. The plain mean is in ``update``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from fedlightning.algorithms.robust import AggregationRule, Median
from fedlightning.algorithms.update import Update


class Combiner(Protocol):
    """Collect the updates of one round."""

    def add(self, update: Update, weight: float, block: int = 0) -> None:
        """Take an update; it is not kept.

        Args:
            update: Like all others in the number, order and shapes of its tensors.
            weight: Its weight, positive.
            block: Number of its block, where means are taken block by block.
        """

    def result(self) -> Update | None:
        """Return what stands for all of them; ``None`` where there was none."""


class RuleCombiner:
    """Combine parameters or gradients by a rule, and buffers by one that goes by each entry.

    Buffers have no common scale with parameters, and rules that measure distances would be led by them. A
    rule that goes by each entry combines them, too; for others, and for integers, the median does, which
    needs no scale and withstands as many bad workers as any rule.

    Args:
        rule: The rule.
        start: What all workers started from: parameters, or zeros for gradients.
        root: What the server has trained on data of its own, for a rule that needs it; not kept.

    Example:
        >>> combiner = RuleCombiner(Median(), start=[torch.zeros(1)])
        >>> for value in (1.0, 2.0, 900.0):
        ...     combiner.add(Update([torch.tensor([value])], present=[True], buffers=[]), weight=1)
        >>> combiner.result().tensors
        [tensor([2.])]
    """

    def __init__(self, rule: AggregationRule, start: Sequence[Tensor], root: Update | None = None) -> None:
        self._rule = rule
        self._root = None if root is None else _flat(root.tensors)
        self._root_extras = {} if root is None else {name: _flat(t) for name, t in root.extras.items()}
        self._start = _flat(start)
        self._like = start
        self._rows: list[Tensor] = []
        self._weights: list[float] = []
        self._buffers: list[list[Tensor]] = []
        self._present: list[bool] = []
        self._extras: defaultdict[str, list[Sequence[Tensor]]] = defaultdict(list)

    def add(self, update: Update, weight: float, block: int = 0) -> None:
        """Take an update; see `Combiner`. It takes all at once, and knows no blocks."""
        self._rows.append(_flat(update.tensors))
        self._weights.append(weight)
        self._buffers.append([buffer.detach().clone() for buffer in update.buffers])
        for name, tensors in update.extras.items():
            self._extras[name].append([tensor.detach().clone() for tensor in tensors])
        before = self._present or [False] * len(update.present)
        self._present = [there or here for there, here in zip(before, update.present, strict=True)]

    @torch.no_grad()
    def result(self) -> Update | None:
        """Return what stands for all updates; see `Combiner`.

        Raises:
            ValueError: There were too few for the rule.
        """
        if not self._rows:
            return None
        self._rule.check_cohort(len(self._rows))
        tensors = self._combined(self._rows, self._start, self._like, self._root)
        buffers = [self._combined_buffer(list(column)) for column in zip(*self._buffers, strict=True)]
        extras = {}
        for name, sent in self._extras.items():
            rows = [_flat(tensors) for tensors in sent]
            root = self._root_extras.get(name)
            extras[name] = self._combined(rows, torch.zeros_like(rows[0]), sent[0], root)
        return Update(tensors, list(self._present), buffers, extras)

    def _combined(
        self, rows: list[Tensor], start: Tensor, like: Sequence[Tensor], root: Tensor | None
    ) -> list[Tensor]:
        weights = torch.tensor(self._weights, dtype=torch.float64, device=start.device)
        if root is not None:
            rows, weights = [root, *rows], torch.cat([weights.new_zeros(1), weights])
        combined = self._rule.combine(torch.stack(rows), weights, start)
        parts = torch.split(combined, [tensor.numel() for tensor in like])
        return [part.view(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, like, strict=True)]

    def _combined_buffer(self, values: list[Tensor]) -> Tensor:
        first = values[0]
        if not first.is_floating_point():
            return _middle(torch.stack(values))
        rows = [_flat([value]) for value in values]
        rule = self._rule if self._rule.by_coordinate else Median()
        weights = torch.tensor(self._weights, dtype=torch.float64, device=first.device)
        combined = rule.combine(torch.stack(rows), weights, torch.zeros_like(rows[0]))
        return combined.view_as(first).to(first.dtype)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return all entries in a row, in the widest of the tensors' dtypes and at least float32."""
    if not tensors:
        return torch.zeros(0)
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return torch.cat([tensor.detach().reshape(-1).to(dtype) for tensor in tensors])


def _middle(stacked: Tensor) -> Tensor:
    """Return the lower median of integers or flags, shape ``(workers, ...)``: one that a worker has sent."""
    if stacked.dtype == torch.bool:
        return stacked.to(torch.uint8).median(dim=0).values.to(torch.bool)
    return stacked.median(dim=0).values
