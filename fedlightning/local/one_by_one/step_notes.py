"""What a step logs, and asks torchmetrics to count, in order: noted when it is taken, and done again.

Who notes calls of metrics, and what stands in for these, is in ``metric_calls``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric

from fedlightning.local.one_by_one.logs import LogCall, VisitLogs
from fedlightning.local.tapes.watching import PLAIN
from fedlightning.local.vectorised.metric_calls import BatchValue, MetricCall


@dataclass(frozen=True)
class Result:
    """What a metric has come to on a batch, or a part of that.

    Args:
        number: Which of the step's calls of metrics has given it.
        part: Which of the leaves of what was returned.
    """

    number: int
    part: int


@dataclass(frozen=True)
class Logged:
    """A call of ``self.log``.

    Args:
        call: As it was made; ``Tensor`` is there in place of a tensor.
        tensors: That tensor, if it was one.
    """

    call: LogCall
    tensors: Sequence[Tensor]

    @property
    def kind(self) -> Any:
        """What it has in common with calls that differ in tensors only."""
        value = self.call.value
        return self.call.name, type(value), _told_by(value), self.call.args, self.call.settings

    def do(self, logs: VisitLogs, results: list[Any]) -> None:
        """Log again.

        Args:
            logs: Stands in for ``self.log``.
            results: What the step's calls of metrics have returned so far.
        """
        call = self.call
        value = call.value
        if value is Tensor:
            value = self.tensors[0]
        elif isinstance(value, Result):
            returned = results[value.number]
            value = returned if type(returned) is Tensor else tree_leaves(returned)[value.part]
        logs.log(call.name, value, *call.args, **call.settings)


@dataclass(frozen=True)
class Counted:
    """A call of a torchmetric.

    Args:
        call: As it was made.
        tensors: What it was given.
        returned: What came of it.
    """

    call: MetricCall
    tensors: Sequence[Tensor]
    returned: Any

    @property
    def kind(self) -> Any:
        """What it has in common with calls that differ in tensors only."""
        return self.call.method, self.call.kind

    def do(self, logs: VisitLogs, results: list[Any]) -> None:
        """Count again; as `Logged.do`."""
        results.append(self.call.make([copied(tensor) for tensor in self.tensors]))


Note: TypeAlias = Logged | Counted


class StepNotes:
    """Note what a step logs and counts.

    Attributes:
        notes: What it has so far.
    """

    def __init__(self) -> None:
        self.notes: list[Note] = []

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors of all notes, in order."""
        return [tensor for note in self.notes for tensor in note.tensors]

    @property
    def counted(self) -> list[Counted]:
        """The calls of metrics."""
        return [note for note in self.notes if isinstance(note, Counted)]

    def log(self, call: LogCall, tensor: Tensor | None) -> None:
        """Note a call of ``self.log``.

        Args:
            call: The call.
            tensor: What is to be kept of its value, if that is a tensor.
        """
        result = self._result_that_is(call.value)
        value = result or (call.value if tensor is None else Tensor)
        self.notes.append(Logged(replace(call, value=value), [] if result or tensor is None else [tensor]))

    def why_not_again(self) -> str:
        """Say what keeps this from being done again; empty if nothing does."""
        for note in self.notes:
            if isinstance(note, Logged):
                value = note.call.value
                if value is not Tensor and not isinstance(value, (Metric, Result, *PLAIN)):
                    return f"a {type(value).__name__} is logged"
                if any(isinstance(one, Tensor) for one in (*note.call.args, *note.call.settings.values())):
                    return "a setting of what is logged is a tensor"
        return ""

    def is_like(self, other: StepNotes) -> bool:
        """Tell whether another run of the step has noted the same, but for the numbers in tensors.

        Args:
            other: What was noted in that.
        """
        kinds, others = (
            [(tensor.dtype, tensor.shape) for tensor in notes.tensors] for notes in (self, other)
        )
        return kinds == others and [note.kind for note in self.notes] == [note.kind for note in other.notes]

    def on(self, tensors: Iterator[Tensor]) -> list[Note]:
        """Return the same notes on other tensors.

        Args:
            tensors: One for each of those that were noted.
        """
        return [replace(note, tensors=[next(tensors) for _ in note.tensors]) for note in self.notes]

    def _result_that_is(self, value: Any) -> Result | None:
        if isinstance(value, BatchValue):
            return Result(value.number, value.part)
        for number, counted in enumerate(self.counted):
            for part, leaf in enumerate(tree_leaves(counted.returned)):
                if leaf is value and isinstance(value, Tensor):
                    return Result(number, part)
        return None


def copied(tensor: Tensor) -> Tensor:
    """Return a copy that lies in memory as a tensor does: sums depend on that.

    Args:
        tensor: The tensor.
    """
    copy = tensor.clone()
    if copy.stride() == tensor.stride():
        return copy
    memory = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).clone().untyped_storage()
    return copy.set_(memory, tensor.storage_offset(), tensor.shape, tensor.stride())


def _told_by(value: Any) -> Any:
    return id(value) if isinstance(value, Metric) else value
