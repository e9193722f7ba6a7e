"""Plans: who trains when, on which of their batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from fedlightning.algorithms import (
    AveragedSchedule,
    ChosenBy,
    Cohort,
    Draw,
    FixedOrder,
    LocalWork,
    OnlineWorkers,
    Plan,
    PoissonSampling,
    Pool,
    Sampling,
    Schedule,
    SequentialSchedule,
    TaggedWorkers,
)

BATCHES = st.dictionaries(st.text("abcdef", min_size=1), st.integers(1, 9), min_size=1, max_size=5)


def make(kind: type[Schedule], batches: dict[str, int], **settings: object) -> Schedule:
    work = LocalWork(steps=settings.pop("steps", None), epochs=settings.pop("epochs", 1))
    return kind(batches, work, **{"cohort_size": None, "rounds_per_epoch": None, "seed": 0, **settings})


def plans(schedule: Schedule, rounds: int) -> list[Plan]:
    done: Counter[str] = Counter()
    drawn = []
    for number in range(rounds):
        plan = schedule.plan(number, done)
        done.update({a.worker: a.steps for a in plan.assignments})
        drawn.append(plan)
    return drawn


@given(BATCHES, st.integers(1, 4))
def test_a_sequential_epoch_sees_every_batch_once(batches: dict[str, int], steps: int) -> None:
    schedule = make(SequentialSchedule, batches, steps=steps)
    for epoch in range(2):
        seen = Counter()
        for plan in plans(schedule, 2 * schedule.rounds_per_epoch)[epoch * schedule.rounds_per_epoch :][
            : schedule.rounds_per_epoch
        ]:
            (assignment,) = plan.assignments
            seen.update((assignment.worker, assignment.first_step + i) for i in range(assignment.steps))
        assert seen == Counter({(w, epoch * n + i): 1 for w, n in batches.items() for i in range(n)})


def test_sequential_visits_in_turn_by_name() -> None:
    schedule = make(SequentialSchedule, {"bob": 3, "alice": 1}, steps=1)
    assert [p.workers[0] for p in plans(schedule, 5)] == ["alice", "bob", "bob", "bob", "alice"]
    listed = make(SequentialSchedule, {"alice": 1, "bob": 3}, steps=1)
    assert list(map(str, plans(listed, 5))) == list(map(str, plans(schedule, 5)))


def test_sequential_by_epochs_visits_everybody_once_per_epoch() -> None:
    schedule = make(SequentialSchedule, {"bob": 3, "alice": 1}, epochs=2)
    assert schedule.rounds_per_epoch == 2
    assert [(a.worker, a.first_step, a.steps) for p in plans(schedule, 3) for a in p.assignments] == [
        ("alice", 0, 2),
        ("bob", 0, 6),
        ("alice", 2, 2),
    ]


def test_sequential_cohorts_are_visited_by_name() -> None:
    names = [f"w{i}" for i in (3, 1, 2, 0, 4)]
    schedule = make(SequentialSchedule, dict.fromkeys(names, 2), cohort_size=3)
    visited = [p.workers[0] for p in plans(schedule, 30)]
    for start in range(0, 30, 3):
        a_pass = visited[start : start + 3]
        assert a_pass == sorted(a_pass)
    assert set(visited) == set(names)


def test_averaged_by_steps() -> None:
    schedule = make(AveragedSchedule, {"bob": 5, "alice": 2}, steps=2)
    assert schedule.rounds_per_epoch == 3
    first, second = plans(schedule, 2)
    assert [(a.worker, a.first_step, a.steps) for a in first.assignments] == [("alice", 0, 2), ("bob", 0, 2)]
    assert [(a.worker, a.first_step, a.steps) for a in second.assignments] == [("alice", 2, 2), ("bob", 2, 2)]


def test_averaged_by_epochs_is_one_round() -> None:
    schedule = make(AveragedSchedule, {"bob": 5, "alice": 2}, epochs=3)
    assert schedule.rounds_per_epoch == 1
    assert [a.steps for a in schedule.plan(0, {}).assignments] == [6, 15]


@pytest.mark.parametrize(
    ("kind", "rounds"),
    [(AveragedSchedule, {2: 5, 3: 4, 10: 1}), (SequentialSchedule, {2: 10, 3: 10, 10: 10})],
)
def test_an_epoch_of_cohorts_sees_the_data_once_on_average(
    kind: type[Schedule], rounds: dict[int, int]
) -> None:
    batches = {f"w{i}": 4 for i in range(10)}
    for size, expected in rounds.items():
        schedule = make(kind, batches, cohort_size=size)
        assert schedule.rounds_per_epoch == expected
        drawn = plans(schedule, expected)
        seen = sum(assignment.steps for plan in drawn for assignment in plan.assignments)
        # All forty batches, or up to the end of the last cohort.
        assert 40 <= seen < 40 + 4 * size


@pytest.mark.parametrize("kind", [AveragedSchedule, SequentialSchedule])
def test_a_worker_alone_does_not_cross_its_epoch(kind: type[Schedule]) -> None:
    schedule = make(kind, {"bob": 5}, steps=2)
    assert schedule.rounds_per_epoch == 3
    assert [a.steps for p in plans(schedule, 6) for a in p.assignments] == [2, 2, 1, 2, 2, 1]


@pytest.mark.parametrize("kind", [AveragedSchedule, SequentialSchedule])
def test_an_empty_cohort_is_an_empty_round(kind: type[Schedule]) -> None:
    sampling = OnlineWorkers([["bob"], []])
    schedule = make(kind, {"bob": 2, "alice": 3}, sampling=sampling, cohort_size=1)
    assert [plan.workers for plan in plans(schedule, 4)] == [("bob",), (), ("bob",), ()]
    assert schedule.rounds_per_epoch == 2, "every other round, the only one who is ever online is seen"


def test_weights_go_with_their_workers() -> None:
    sampling = ChosenBy(lambda draw: {"carol": 3.0, "alice": 1.0})
    schedule = make(AveragedSchedule, dict.fromkeys(["bob", "carol", "alice"], 2), sampling=sampling)
    assert [(a.worker, a.weight) for a in schedule.plan(0, {}).assignments] == [
        ("alice", 1.0),
        ("carol", 3.0),
    ]


def test_a_sequential_pass_keeps_an_order_that_is_meant() -> None:
    order = FixedOrder(["carol", "alice", "bob"])
    schedule = make(SequentialSchedule, dict.fromkeys(["bob", "carol", "alice"], 2), sampling=order)
    assert [p.workers[0] for p in plans(schedule, 4)] == ["carol", "alice", "bob", "carol"]
    assert schedule.rounds_per_epoch == 3


def test_an_epoch_is_counted_by_whom_may_be_drawn() -> None:
    batches = {f"w{i}": 4 for i in range(10)}
    tagged = TaggedWorkers("gpu", {name: ["gpu"] for name in ("w1", "w3", "w5")})
    assert make(AveragedSchedule, batches, sampling=tagged, cohort_size=2).rounds_per_epoch == 2
    assert make(SequentialSchedule, batches, sampling=tagged, cohort_size=2).rounds_per_epoch == 3
    assert make(AveragedSchedule, batches, sampling=PoissonSampling(0.25)).rounds_per_epoch == 4


def test_a_cohort_of_strangers_is_refused() -> None:
    class Careless(Sampling):
        def draw(self, draw: Draw) -> Cohort:
            return Cohort(("eve",))

    schedule = make(AveragedSchedule, {"bob": 2, "alice": 2}, sampling=Careless())
    with pytest.raises(ValueError, match=r"the cohort of Careless names \['eve'\]"):
        schedule.plan(0, {})


class Untouched(list[str]):
    """Names that are looked up one by one, and never gone through."""

    @override
    def __iter__(self) -> Iterator[str]:
        raise AssertionError("everybody was gone through, for a cohort of a few")


def test_a_round_costs_its_cohort_and_not_everybody() -> None:
    names = [f"worker-{number:05d}" for number in range(10_000)]
    schedule = AveragedSchedule(
        dict.fromkeys(names, 1),
        LocalWork(steps=1),
        cohort_size=3,
        rounds_per_epoch=1,
        seed=0,
        pool=Pool(Untouched(names), samples={}),
    )
    assert len(schedule.plan(7, steps_done={}).workers) == 3
