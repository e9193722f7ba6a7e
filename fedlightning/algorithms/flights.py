"""The event queue: which workers are under way, since which version of the global model, and until when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any


@dataclass(frozen=True, order=True)
class Flight:
    """One worker that is under way. Flights are ordered by arrival, and by name where they arrive at once.

    Args:
        arrival: Simulated seconds since the run began.
        worker: Its name.
        version: Number of the server's update that its start waited for: the global model before that round.
        steps: Local steps that it does.
        weight: Its weight in the average; ``None`` for what the algorithm says.

    Example:
        >>> min(Flight(3.0, "carol", 1, 5), Flight(2.0, "bob", 0, 5), Flight(2.0, "alice", 0, 5)).worker
        'alice'
    """

    arrival: float
    worker: str
    version: int
    steps: int
    weight: float | None = None


@dataclass(frozen=True)
class Flights:
    """Where a run stands between two updates of the server; part of the checkpoint.

    Args:
        now: Simulated seconds since the run began.
        draws: How often workers were drawn so far.
        under_way: Who is under way.

    Example:
        >>> flight, rest = Flights(0.0, 1, (Flight(3.0, "bob", 0, 5), Flight(2.0, "alice", 0, 5))).next()
        >>> flight.worker, rest.now, len(rest.under_way)
        ('alice', 2.0, 1)
    """

    now: float = 0.0
    draws: int = 0
    under_way: tuple[Flight, ...] = ()

    @property
    def due(self) -> bool:
        """Whether somebody else arrives at this very moment."""
        return any(flight.arrival <= self.now for flight in self.under_way)

    @property
    def versions(self) -> frozenset[int]:
        """The versions of the global model that somebody under way has begun with."""
        return frozenset(flight.version for flight in self.under_way)

    def next(self) -> tuple[Flight, Flights]:
        """Return who arrives next, and what is then."""
        first = min(self.under_way, key=lambda flight: (flight.arrival, flight.worker))
        rest = tuple(flight for flight in self.under_way if flight is not first)
        return first, replace(self, now=first.arrival, under_way=rest)

    def state_dict(self) -> dict[str, Any]:
        """Return the queue as plain values."""
        return {"now": self.now, "draws": self.draws, "under_way": [list(astuple(f)) for f in self.under_way]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Flights:
        """Return the queue that was saved."""
        return cls(state["now"], state["draws"], tuple(Flight(*row) for row in state["under_way"]))
