"""How an epoch is cut into rounds: draws up the plan of round ``r``. Execution lives in the strategy.

A plan depends on the seed, the round, the steps that each worker has done so far and, where cohorts are
chosen by losses, on these, and on nothing else, so that a resumed run draws up the same plans. How cohorts
are drawn lives in ``sampling``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from operator import itemgetter

from typing_extensions import override

from fedlightning.algorithms.participation.base import Forecast, Participation, asked_of, outcome_of
from fedlightning.algorithms.plan import Assignment, Plan
from fedlightning.algorithms.sampling import Cohort, Draw, Losses, Pool, Sampling, UniformSampling
from fedlightning.algorithms.sampling.base import NoLosses, check_names


@dataclass(frozen=True)
class LocalWork:
    """How much a worker trains in one visit: a number of local steps, or of local epochs.

    Args:
        steps: Batches per visit; ``None`` to count in epochs.
        epochs: Passes over the worker's shard per visit; ignored where ``steps`` is given.

    Example:
        >>> LocalWork(steps=4).visits_per_epoch(batches=10), LocalWork(epochs=2).in_steps(batches=10)
        (3, 20)
    """

    steps: int | None = None
    epochs: int = 1

    def in_steps(self, batches: int) -> int:
        """Return the visit's length in batches, for a shard of ``batches`` batches."""
        return self.steps if self.steps is not None else self.epochs * batches

    def visits_per_epoch(self, batches: int) -> int:
        """Return how many visits it takes to see a shard of ``batches`` batches once."""
        return 1 if self.steps is None else -(-batches // self.steps)

    def piece(self, batches: int) -> int:
        """Return the least piece of it that a worker gets done: a step, or an epoch where there are several.

        Args:
            batches: Batches of the worker's shard.
        """
        return 1 if self.steps is not None or self.epochs == 1 else batches


class Schedule(ABC):
    """Draw up the plan of each round.

    Args:
        batches: Batches per local epoch, by worker name, in any order.
        work: Length of a visit.
        cohort_size: Workers per round (averaged) or per pass (sequential); ``None`` for all of them.
        sampling: How a cohort is drawn; uniformly, unless given.
        pool: What sampling may know of the workers; their names alone, unless given.
        rounds_per_epoch: Rounds in one Lightning epoch; ``None`` for as many as see the data once, on average
            where cohorts are drawn.
        seed: Seed of the run.
        participation: What keeps a cohort from doing all of its work, in averaged rounds.
    """

    def __init__(
        self,
        batches: Mapping[str, int],
        work: LocalWork,
        *,
        cohort_size: int | None,
        rounds_per_epoch: int | None,
        seed: int,
        sampling: Sampling | None = None,
        pool: Pool | None = None,
        participation: Sequence[Participation] = (),
    ) -> None:
        self.batches = dict(batches)
        self.work = work
        self.cohort_size = cohort_size
        self.seed = seed
        self.sampling = sampling or UniformSampling()
        self.pool = pool or Pool(sorted(self.batches), samples={})
        self.participation = tuple(participation)
        self.rounds_per_epoch = rounds_per_epoch or self._rounds_to_see_the_data()

    @abstractmethod
    def _rounds_to_see_the_data(self) -> int:
        """Return how many rounds see every sample once (on average, where cohorts are drawn)."""

    @abstractmethod
    def plan(
        self,
        round: int,
        steps_done: Mapping[str, int],
        losses: Losses | None = None,
        forecast: Forecast | None = None,
    ) -> Plan:
        """Return the plan of round ``round``.

        Args:
            round: Number of the round, from 0.
            steps_done: Local steps that each worker has done in all earlier rounds; absent names count 0.
            losses: What is known of the global model as it is before the round.
            forecast: What is known of visits, where somebody goes by a simulated clock.
        """

    @property
    def is_foreseeable(self) -> bool:
        """Whether nothing that a round comes to has a say in the plan of the next one."""
        return False

    def _cohort(self, number: int, losses: Losses | None = None) -> Cohort:
        size = asked_of(self.participation, self.cohort_size, len(self.pool.workers))
        draw = Draw(self.pool, size, self.seed, number, losses or NoLosses())
        cohort = self.sampling.draw(draw)
        strangers = [name for name in cohort.workers if name not in self.batches]
        check_names(f"the cohort of {type(self.sampling).__name__}", strangers, self.pool)
        return cohort

    @cached_property
    def _visits_of(self) -> dict[str, int]:
        """How many visits it takes to see a worker's shard once, for each who may be drawn."""
        eligible = set(self.sampling.eligible(self.pool))
        return {
            name: self.work.visits_per_epoch(batches)
            for name, batches in self.batches.items()
            if name in eligible
        }

    @property
    def _mean_cohort(self) -> float:
        return self.sampling.mean_size(self.pool, self.cohort_size)

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

    Example:
        >>> batches, work = {"bob": 10, "alice": 4}, LocalWork(epochs=1)
        >>> schedule = AveragedSchedule(batches, work, cohort_size=None, rounds_per_epoch=None, seed=0)
        >>> for assignment in schedule.plan(1, steps_done={"bob": 10, "alice": 4}).assignments:
        ...     print(assignment.worker, assignment.first_step, assignment.steps)
        alice 4 4
        bob 10 10
    """

    @property
    @override
    def is_foreseeable(self) -> bool:
        return type(self.sampling) is UniformSampling and not self.participation

    @override
    def _rounds_to_see_the_data(self) -> int:
        visits = self._visits_of.values()
        return ceil(max(visits) * len(visits) / self._mean_cohort)

    @override
    def plan(
        self,
        round: int,
        steps_done: Mapping[str, int],
        losses: Losses | None = None,
        forecast: Forecast | None = None,
    ) -> Plan:
        """Return the plan of round ``round`` for the whole cohort, sorted by name."""
        cohort = self._cohort(round, losses)
        weights = cohort.weights or (None,) * len(cohort.workers)
        pairs = sorted(zip(cohort.workers, weights, strict=True), key=itemgetter(0))
        # In columns: of a large cohort in short visits, one by one took a fortieth of the time.
        workers = [worker for worker, _ in pairs]
        first = [steps_done.get(worker, 0) for worker in workers]
        steps = self._lengths(workers, steps_done)
        assignments = tuple(map(Assignment, workers, first, steps, [weight for _, weight in pairs]))
        return self._outcome(Plan(round, assignments, self.seed), forecast or Forecast())

    def _lengths(self, workers: Sequence[str], steps_done: Mapping[str, int]) -> list[int]:
        if len(self.batches) == 1:
            return [self._within_local_epoch(worker, steps_done) for worker in workers]
        if self.work.steps is not None:
            return [self.work.steps] * len(workers)
        return [self.work.epochs * self.batches[worker] for worker in workers]

    def _outcome(self, plan: Plan, forecast: Forecast) -> Plan:
        if not self.participation:
            return plan
        pieces = {name: self.work.piece(self.batches[name]) for name in plan.workers}
        forecast = replace(forecast, pieces=pieces, goal=self.cohort_size)
        return outcome_of(self.participation, plan, forecast)


class SequentialSchedule(Schedule):
    """One round: the module visits one worker and goes on from there with what it has learned.

    Workers are visited in turn, by name: the order in which somebody lists them decides nothing. Those that
    have seen their shard wait until all others have, too, so that an epoch sees every sample once. Where
    cohorts are drawn, each pass visits the workers of a new cohort, by name or, where sampling means one
    (`FixedOrder`), in the cohort's own order. A pass has as many rounds as workers are asked for; where fewer
    are drawn, the last ones visit nobody.

    Example:
        >>> batches, work = {"bob": 3, "alice": 2}, LocalWork(steps=2)
        >>> schedule = SequentialSchedule(batches, work, cohort_size=None, rounds_per_epoch=None, seed=0)
        >>> [schedule.plan(round, steps_done={}).workers for round in range(3)]
        [('alice',), ('bob',), ('bob',)]
    """

    @override
    def _rounds_to_see_the_data(self) -> int:
        visits = sum(self._visits_of.values())
        return visits if self._visits_everybody else ceil(visits * self._pass_length / self._mean_cohort)

    @override
    def plan(
        self,
        round: int,
        steps_done: Mapping[str, int],
        losses: Losses | None = None,
        forecast: Forecast | None = None,
    ) -> Plan:
        """Return the plan of round ``round``: one worker, or none."""
        assignments = tuple(
            Assignment(worker, steps_done.get(worker, 0), self._within_local_epoch(worker, steps_done))
            for worker in self._worker_of(round)
        )
        return Plan(round, assignments, self.seed)

    def _worker_of(self, round: int) -> tuple[str, ...]:
        if self._visits_everybody:
            visits = self._visits_of_an_epoch
            return (visits[round % len(visits)],)
        number, position = divmod(round, self._pass_length)
        return self._pass(number)[position : position + 1]

    @cached_property
    def _visits_everybody(self) -> bool:
        enough = self.cohort_size is None or self.cohort_size >= len(self.batches)
        return enough and isinstance(self.sampling, UniformSampling)

    @cached_property
    def _pass_length(self) -> int:
        eligible = len(self.sampling.eligible(self.pool))
        return eligible if self.cohort_size is None else min(self.cohort_size, eligible)

    def _pass(self, number: int) -> tuple[str, ...]:
        workers = self._cohort(number).workers
        return workers if self.sampling.keeps_order else tuple(sorted(workers))

    @cached_property
    def _visits_of_an_epoch(self) -> tuple[str, ...]:
        return interleave(dict(sorted(self._visits_of.items())))


def interleave(visits: Mapping[str, int]) -> tuple[str, ...]:
    """Return a round-robin order in which each name appears as often as ``visits`` says.

    Example:
        >>> interleave({"bob": 3, "alice": 1})
        ('bob', 'alice', 'bob', 'bob')
    """
    longest = max(visits.values(), default=0)
    return tuple(name for turn in range(longest) for name, count in visits.items() if turn < count)
