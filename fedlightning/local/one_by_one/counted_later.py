"""Calls of torchmetrics that are made once for several played steps, where that comes to the same to the bit.

An update takes as long as a small step. Those that add whole numbers, sample by sample, may count several
batches at once; all others are made step by step (``step_notes``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from fedlightning.local.additive import adds_up
from fedlightning.local.one_by_one.step_notes import Counted, Logged, Note, Result, copied

MOST_STEPS = 64
"""For how many steps what metrics are given is kept, at most."""

MOST_BYTES = 1 << 18
"""How much may be kept of each."""


class CountFailed(Exception):
    """A metric refuses what it was given; the cause says why.

    Args:
        step: In which step of those that were counted later.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"step {step}")
        self.step = step


class CountedLater:
    """Keep what metrics are given in played steps, and let them count it when asked to."""

    def __init__(self) -> None:
        self._given: dict[int, tuple[Counted, list[tuple[int, Sequence[Tensor]]]]] = {}
        self._step = 0

    def begin(self) -> None:
        """Forget all that is left: a visit begins."""
        self._given.clear()
        self._step = 0

    def next_step(self) -> None:
        """Go on to the next step of the visit."""
        self._step += 1
        if self._step % MOST_STEPS == 0:
            self.count()

    def add(self, note: Counted) -> None:
        """Keep what a metric is given in this step.

        Args:
            note: The call, one of those that `may_wait`.
        """
        kept = self._given.setdefault(id(note), (note, []))[1]
        kept.append((self._step, [copied(tensor) for tensor in note.tensors]))

    def count(self) -> None:
        """Let metrics count what has been kept.

        Raises:
            CountFailed: One of them has refused it; names the first step of which it has.
        """
        given, self._given = [*self._given.values()], {}
        failed = [failure for note, kept in given for failure in _counted(note, kept)]
        if failed:
            step, error = min(failed, key=lambda failure: failure[0])
            raise CountFailed(step) from error


def may_wait(note: Note, notes: Sequence[Note]) -> bool:
    """Tell whether a call may be made later, with those of other steps.

    Args:
        note: The call.
        notes: All notes of the step.
    """
    counted = [one for one in notes if isinstance(one, Counted)]
    if not isinstance(note, Counted) or not all(map(_is_of_torchmetrics, counted)):
        return False
    number = next(place for place, one in enumerate(counted) if one is note)
    is_logged = any(
        isinstance(one, Logged) and isinstance(one.call.value, Result) and one.call.value.number == number
        for one in notes
    )
    rows = {len(tensor) if tensor.dim() else 0 for tensor in note.tensors}
    small = sum(tensor.nbytes for tensor in note.tensors) <= MOST_BYTES
    return not is_logged and small and len(rows) == 1 and 0 not in rows and _adds_whole_numbers(note)


def _counted(note: Counted, kept: Sequence[tuple[int, Sequence[Tensor]]]) -> list[tuple[int, Exception]]:
    """Let a metric count, and return the first step of which it has refused to, and how."""
    metric = note.call.metric
    assert isinstance(metric, Metric)
    if len(kept) > 1 and _adds_whole_numbers(note):
        before = metric._update_count
        try:
            columns = [torch.cat(column) for column in zip(*(own for _, own in kept), strict=True)]
            note.call.make(columns, "update")
        except Exception:  # noqa: BLE001  # it is found out below which step it is due to
            metric._update_count = before
        else:
            metric._update_count += len(kept) - 1
            return []
    step = 0
    try:
        for step, tensors in kept:  # noqa: B007  # it tells where
            note.call.make(tensors)
    except Exception as error:  # noqa: BLE001  # raised when all have counted
        return [(step, error)]
    return []


def _adds_whole_numbers(note: Counted) -> bool:
    metric = note.call.metric
    # Collections find out by their first batch what their metrics have in common.
    return (
        isinstance(metric, Metric)
        and len(note.call.parts) == 1
        and adds_up(metric)
        and _is_as_made(metric)
        and all(_is_of_whole_numbers(default) for default in metric._defaults.values())
    )


def _is_of_whole_numbers(value: Any) -> bool:
    return isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex())


def _is_as_made(metric: Metric) -> bool:
    """Tell whether nobody has put another method in the place of a metric's own."""
    update = getattr(getattr(metric.update, "__wrapped__", None), "__func__", None)
    return update is type(metric).update and "forward" not in vars(metric)


def _is_of_torchmetrics(note: Counted) -> bool:
    return all(type(part).__module__.startswith("torchmetrics.") for part in note.call.parts)
