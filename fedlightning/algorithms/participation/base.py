"""What all ways of taking part in a round have in common; each has a module beside this one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from fedlightning.algorithms.flights import Flights
from fedlightning.algorithms.plan import Assignment, Plan
from fedlightning.algorithms.sampling.base import Pool, check_names
from fedlightning.algorithms.sampling.identity import identity_of


def _no_clock(assignment: Assignment) -> float:
    raise RuntimeError(f"when {assignment.worker!r} arrives is asked for, and there is no simulated clock.")


@dataclass(frozen=True)
class Forecast:
    """What is known of a round's work before it is done.

    Args:
        pieces: Local steps in the least piece of work of each worker: an epoch where visits have several, a
            step otherwise. One step for those that are not in it.
        goal: How many updates are wanted, the ``cohort_size``; ``None`` for all.
        seconds: Tells how long a visit will take, by the simulated clock.
        flights: Who is under way already, where the server is asynchronous.

    Example:
        >>> Forecast(pieces={"bob": 10}).goal is None
        True
    """

    pieces: Mapping[str, int] = field(default_factory=dict)
    goal: int | None = None
    seconds: Callable[[Assignment], float] = _no_clock
    flights: Flights = field(default_factory=Flights)

    @property
    def has_clock(self) -> bool:
        """Whether it is known how long visits will take."""
        return self.seconds is not _no_clock


class Participation(ABC):
    """Say how much of a round's work is done: some workers are slow, some drop out.

    A simulation knows beforehand what will be lost, and does not do it at all.

    Example:
        >>> from fedlightning.algorithms import Assignment, Plan
        >>> class Early(Participation):
        ...     def outcome(self, plan, forecast):
        ...         return without(plan, plan.workers[1:], "too late")
        >>> cohort = (Assignment("alice", first_step=0, steps=5), Assignment("bob", first_step=0, steps=5))
        >>> Early().outcome(Plan(0, cohort, seed=0), Forecast()).absent
        {'bob': 'too late'}
    """

    @abstractmethod
    def outcome(self, plan: Plan, forecast: Forecast) -> Plan:
        """Return what is done of a round, as a pure function of what is given.

        Args:
            plan: What the cohort is asked to do.
            forecast: What is known of it.

        Returns:
            The same round with shorter visits, or fewer; ``absent`` says why somebody is not among them.
        """

    @property
    def needs_clock(self) -> bool:
        """Whether it goes by the simulated clock."""
        return False

    def asked(self, size: int | None) -> int | None:
        """Return how many workers are drawn for as many as are wanted.

        Args:
            size: How many are wanted, the ``cohort_size``; ``None`` for all.

        Raises:
            ValueError: That cannot be said without a size.
        """
        return size

    @property
    def named(self) -> Collection[str]:
        """Names of the workers that it was told of."""
        return ()

    def check(self, pool: Pool) -> None:
        """Check what it was told against the workers that there are.

        Args:
            pool: All workers of the run.

        Raises:
            ValueError: There is only one, or it was told of others.
        """
        if len(pool.workers) == 1:
            raise ValueError(
                f"participation={self!r}, but there is only one worker, and no cohort that goes on without "
                "it. Use more workers, or leave participation out."
            )
        check_names("participation", self.named, pool)

    @property
    def identity(self) -> str:
        """What a run must have in common with a checkpoint to go on from it, as text."""
        return identity_of(self)


def without(plan: Plan, workers: Collection[str], reason: str) -> Plan:
    """Return a round without the work of some of its workers.

    Args:
        plan: The round.
        workers: Names of those whose work is lost.
        reason: Why, for the round's record.
    """
    assignments = tuple(one for one in plan.assignments if one.worker not in workers)
    absent = {name: reason for name in plan.workers if name in workers}
    return plan.but(assignments, {**plan.absent, **absent})


def outcome_of(participation: Sequence[Participation], plan: Plan, forecast: Forecast) -> Plan:
    """Return what is done of a round after several reasons to do less, one after the other.

    Args:
        participation: The reasons.
        plan: What the cohort is asked to do.
        forecast: What is known of it.
    """
    for part in participation:
        plan = part.outcome(plan, forecast)
    return plan


def asked_of(participation: Sequence[Participation], size: int | None, workers: int) -> int | None:
    """Return how many workers are drawn for a cohort, at most as many as there are.

    Args:
        participation: Of which some may ask for more than are wanted.
        size: How many are wanted; ``None`` for all.
        workers: How many there are.
    """
    for part in participation:
        size = part.asked(size)
    return None if size is None else min(size, workers)
