"""How an epoch is cut into rounds: draws up the plan of round ``r``. Execution lives in the strategy.

A plan depends on the seed, the round and the steps that each worker has done so far, and on nothing
else, so that a resumed run draws up the same plans.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fedlightning.algorithms.cohort import cohort_of_sorted
from fedlightning.algorithms.plan import Assignment, Plan


@dataclass(frozen=True)
class LocalWork:
    """How much a worker trains in one visit: a number of local steps, or of local epochs.

    Args:
        steps: Batches per visit; ``None`` to count in epochs.
        epochs: Passes over the worker's shard per visit; ignored where ``steps`` is given.
    """

    steps: int | None = None
    epochs: int = 1

    def in_steps(self, batches: int) -> int:
        """Return the visit's length in batches, for a shard of ``batches`` batches."""
        return self.steps if self.steps is not None else self.epochs * batches

    def visits_per_epoch(self, batches: int) -> int:
        """Return how many visits it takes to see a shard of ``batches`` batches once."""
        return 1 if self.steps is None else -(-batches // self.steps)


class Schedule(ABC):
    """Draw up the plan of each round.

    Args:
        batches: Batches per local epoch, by worker name; in the order in which workers are visited.
        work: Length of a visit.
        cohort_size: Workers per round (averaged) or per pass (sequential); ``None`` for all of them.
        rounds_per_epoch: Rounds in one Lightning epoch; ``None`` for as many as see the data once, on average
            where cohorts are drawn.
        seed: Seed of the run.
    """

    def __init__(
        self,
        batches: Mapping[str, int],
        work: LocalWork,
        *,
        cohort_size: int | None,
        rounds_per_epoch: int | None,
        seed: int,
    ) -> None:
        self.batches = dict(batches)
        self.work = work
        self.cohort_size = min(cohort_size or len(self.batches), len(self.batches))
        self.seed = seed
        self._names = sorted(self.batches)
        self.rounds_per_epoch = rounds_per_epoch or self._rounds_to_see_the_data()

    @abstractmethod
    def _rounds_to_see_the_data(self) -> int:
        """Return how many rounds see every sample once (on average, where cohorts are drawn)."""

    @abstractmethod
    def plan(self, round: int, steps_done: Mapping[str, int]) -> Plan:
        """Return the plan of round ``round``.

        Args:
            round: Number of the round, from 0.
            steps_done: Local steps that each worker has done in all earlier rounds; absent names count 0.
        """

    def _cohort(self, number: int) -> tuple[str, ...]:
        return cohort_of_sorted(self._names, self.cohort_size, seed=self.seed, round=number)

    def _left_in_local_epoch(self, worker: str, steps_done: Mapping[str, int]) -> int:
        batches = self.batches[worker]
        return batches - steps_done.get(worker, 0) % batches

    def _within_local_epoch(self, worker: str, steps_done: Mapping[str, int]) -> int:
        """Return the visit's length, cut at the end of the local epoch where it is counted in steps."""
        if self.work.steps is None:
            return self.work.in_steps(self.batches[worker])
        return min(self.work.steps, self._left_in_local_epoch(worker, steps_done))


class AveragedSchedule(Schedule):
    """One round: every worker of the cohort trains from the same start, and the results are averaged.

    All do the same number of local steps (or epochs), so small shards are seen again before large ones
    are through. A worker that is alone never trains across the end of its epoch, so that its rounds are
    the batches of an ordinary ``fit``.
    """

    def _rounds_to_see_the_data(self) -> int:
        visits = max(self.work.visits_per_epoch(batches) for batches in self.batches.values())
        return -(-visits * len(self.batches) // self.cohort_size)

    def plan(self, round: int, steps_done: Mapping[str, int]) -> Plan:
        """Return the plan of round ``round`` for the whole cohort, sorted by name."""
        cohort = self._cohort(round)
        alone = len(self.batches) == 1
        assignments = tuple(
            Assignment(
                worker,
                steps_done.get(worker, 0),
                self._within_local_epoch(worker, steps_done)
                if alone
                else self.work.in_steps(self.batches[worker]),
            )
            for worker in cohort
        )
        return Plan(round, assignments, self.seed)


class SequentialSchedule(Schedule):
    """One round: the module visits one worker and goes on from there with what it has learned.

    Workers are visited in turn. Those that have seen their shard wait until all others have, too, so that
    an epoch sees every sample once. Where cohorts are drawn, each pass visits the workers of a new cohort.
    """

    def _rounds_to_see_the_data(self) -> int:
        return sum(self.work.visits_per_epoch(batches) for batches in self.batches.values())

    def plan(self, round: int, steps_done: Mapping[str, int]) -> Plan:
        """Return the plan of round ``round``: one worker."""
        worker = self._worker_of(round)
        steps = self._within_local_epoch(worker, steps_done)
        return Plan(round, (Assignment(worker, steps_done.get(worker, 0), steps),), self.seed)

    def _worker_of(self, round: int) -> str:
        if self.cohort_size < len(self.batches):
            number, position = divmod(round, self.cohort_size)
            return self._pass(number)[position]
        visits = self._visits_of_an_epoch
        return visits[round % len(visits)]

    def _pass(self, number: int) -> tuple[str, ...]:
        return tuple(sorted(self._cohort(number), key=self._positions.__getitem__))

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {worker: position for position, worker in enumerate(self.batches)}

    @cached_property
    def _visits_of_an_epoch(self) -> tuple[str, ...]:
        return interleave({name: self.work.visits_per_epoch(n) for name, n in self.batches.items()})


def interleave(visits: Mapping[str, int]) -> tuple[str, ...]:
    """Return a round-robin order in which each name appears as often as ``visits`` says.

    Example:
        >>> interleave({"bob": 3, "alice": 1})
        ('bob', 'alice', 'bob', 'bob')
    """
    longest = max(visits.values(), default=0)
    return tuple(name for turn in range(longest) for name, count in visits.items() if turn < count)
