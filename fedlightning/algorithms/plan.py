"""What one federated round is to do: who trains, and which of their batches. Data only.

How a plan is drawn up lives in ``schedule``; how it is carried out, in the strategy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fedlightning.algorithms.flights import Flights


class Assignment(NamedTuple):
    """One worker's share of a round.

    A worker's data is an endless stream of batches numbered from 0; batch ``b`` belongs to its local
    epoch ``b // batches_per_epoch``. The assignment is the slice ``[first_step, first_step + steps)``.

    Args:
        worker: Name of the worker.
        first_step: Number of its first batch, counted over the whole run.
        steps: How many batches to train on (local steps), at least 1.
        weight: Its weight in the average, positive; ``None`` for its number of samples.
        version: Number of the round whose global model it starts from; ``None`` for that of its own round.
    """

    # Not a dataclass: of a large cohort in short visits, making frozen ones took a fortieth of the time.
    worker: str
    first_step: int
    steps: int
    weight: float | None = None
    version: int | None = None


class Plan:
    """One federated round, as the batch that Lightning's training loop sees: names and numbers, no data.

    Args:
        round: Number of the round, counted from 0 over the whole run.
        assignments: The cohort's work, in the order in which updates are combined.
        seed: Seed of the whole run, from which every random stream of the round is derived.
        loader: Number of the train loader that it was drawn for, where there are several.
        absent: Why somebody who was drawn sends no update, by name, as far as that is known beforehand.
        closes: Simulated seconds after which the round ends; ``None`` for when its last visit does.
        flights: Who is still under way when the round ends; nobody, unless the server is asynchronous.

    Example:
        >>> Plan(3, (Assignment("bob", first_step=30, steps=10),), seed=0)
        Plan(round=3, workers=['bob'])
    """

    # Not a dataclass: Lightning's precision plugins take every dataclass apart that a loader yields.
    __slots__ = ("_workers", "absent", "assignments", "closes", "flights", "loader", "round", "seed")

    def __init__(
        self,
        round: int,
        assignments: tuple[Assignment, ...],
        seed: int,
        loader: int = 0,
        absent: Mapping[str, str] | None = None,
        closes: float | None = None,
        flights: Flights | None = None,
    ) -> None:
        self.round = round
        self.assignments = assignments
        self.seed = seed
        self.loader = loader
        self.absent = dict(absent or {})
        self.closes = closes
        self.flights = flights or Flights()
        self._workers: tuple[str, ...] | None = None

    @property
    def workers(self) -> tuple[str, ...]:
        """Names of the cohort, in the order of the assignments."""
        if self._workers is None:
            self._workers = tuple([assignment.worker for assignment in self.assignments])
        return self._workers

    def but(self, assignments: tuple[Assignment, ...], absent: Mapping[str, str]) -> Plan:
        """Return the same round with other work.

        Args:
            assignments: The work.
            absent: Who sends no update, and why.
        """
        return Plan(self.round, assignments, self.seed, self.loader, absent, self.closes, self.flights)

    def closing(self, closes: float | None) -> Plan:
        """Return the same round with another end.

        Args:
            closes: Simulated seconds after which it ends.
        """
        return Plan(self.round, self.assignments, self.seed, self.loader, self.absent, closes, self.flights)

    def __repr__(self) -> str:
        return f"Plan(round={self.round}, workers={list(self.workers)})"
