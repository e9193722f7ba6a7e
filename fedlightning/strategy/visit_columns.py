"""Records of a large round's visits in columns: one of them is made when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from fedlightning.strategy.records import VisitRecord

Integers = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VisitColumns(Sequence[VisitRecord]):
    """The records of the visits of one round; arguments as of `VisitRecord`, one number for each visit.

    Args:
        round: Number of the round.
        workers: Names of the workers.
        samples: Numbers of their samples.
        steps: Local steps done.
        losses: Mean training losses over the steps.
        metrics: What was logged, by name; not a number where a worker has not logged it.
        logged: For each name who has logged it.
        bytes_up: Bytes that left.
        bytes_down: Bytes that were sent.

    Example:
        >>> one, two = np.array([1, 1]), np.array([2, 2])
        >>> visits = VisitColumns(0, ("alice", "bob"), two, one, np.array([0.5, 0.75]), {}, {}, two, two)
        >>> visits[1].worker, visits[1].loss, len(visits)
        ('bob', 0.75, 2)
    """

    round: int
    workers: tuple[str, ...]
    samples: Integers
    steps: Integers
    losses: Values
    metrics: Mapping[str, Values]
    logged: Mapping[str, npt.NDArray[np.bool_]]
    bytes_up: Integers
    bytes_down: Integers

    @override
    def __len__(self) -> int:
        return len(self.workers)

    @overload
    def __getitem__(self, index: int) -> VisitRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[VisitRecord]: ...
    @override
    def __getitem__(self, index: int | slice) -> VisitRecord | list[VisitRecord]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return VisitRecord(
            round=self.round,
            worker=self.workers[index],
            samples=int(self.samples[index]),
            steps=int(self.steps[index]),
            loss=float(self.losses[index]),
            metrics={
                name: float(column[index])
                for name, column in self.metrics.items()
                if self.logged[name][index]
            },
            bytes_up=int(self.bytes_up[index]),
            bytes_down=int(self.bytes_down[index]),
        )

    def in_common(self) -> dict[str, Values]:
        """Return the metrics that every worker has logged; the loss, where nobody has logged anything."""
        if not self.metrics:
            return {"loss": self.losses}
        return {name: column for name, column in self.metrics.items() if self.logged[name].all()}
