"""Asynchronous servers: the event queue, staleness, and what an arrival amounts to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.algorithms import (
    Assignment,
    Asynchronous,
    AsynchronousSchedule,
    AveragedSchedule,
    Constant,
    FedAsync,
    FedBuff,
    Flights,
    Forecast,
    Hinge,
    LocalWork,
    Plan,
    Polynomial,
)


def plans(
    seconds: Mapping[str, float], asynchronous: Asynchronous, rounds: int, cohort_size: int | None = None
) -> list[Plan]:
    batches = dict.fromkeys(seconds, 2)
    terms: dict[str, Any] = {"cohort_size": cohort_size, "rounds_per_epoch": None, "seed": 0}
    schedule = AsynchronousSchedule(batches, LocalWork(), asynchronous=asynchronous, **terms)
    flights, drawn = Flights(), []

    def duration(one: Assignment) -> float:
        return seconds[one.worker]

    for number in range(rounds):
        plan = schedule.plan(number, {}, forecast=Forecast(seconds=duration, flights=flights))
        # What is planned is a pure function of what is given, and the queue survives being saved.
        again = schedule.plan(number, {}, forecast=Forecast(seconds=duration, flights=flights))
        assert (again.assignments, again.flights) == (plan.assignments, plan.flights)
        flights = Flights.from_state(plan.flights.state_dict())
        assert flights == plan.flights
        drawn.append(plan)
    return drawn


def told(plan: Plan) -> tuple[float, dict[str, int]]:
    """Return when the server steps, and how stale each arrival is."""
    stale = {one.worker: plan.round - (one.version or 0) for one in plan.assignments}
    return plan.flights.now, stale


def test_arrivals_are_those_of_a_time_table_drawn_up_by_hand() -> None:
    """ann takes 2 seconds, bob 5, carl 6; the buffer holds two, and all are under way when they can be.

    0 s: all begin with version 0. 2 s: ann arrives and waits in the buffer. 5 s: bob arrives, the server
    steps, and both begin with version 1. 6 s: carl arrives with version 0. 7 s: ann arrives with version 1,
    and the server steps; carl and ann begin with version 2. 9 s: ann. 10 s: bob, with version 1.
    """
    found = plans({"ann": 2.0, "bob": 5.0, "carl": 6.0}, FedBuff(buffer=2), rounds=3)
    assert [told(plan) for plan in found] == [
        (5.0, {"ann": 0, "bob": 0}),
        (7.0, {"ann": 0, "carl": 1}),
        (10.0, {"ann": 0, "bob": 1}),
    ]
    assert [plan.closes for plan in found] == [5.0, 2.0, 3.0]
    assert {flight.worker: flight.version for flight in found[-1].flights.under_way} == {"carl": 2}


def test_those_that_arrive_at_once_do_so_by_name_and_before_anybody_begins() -> None:
    found = plans({"bob": 1.0, "ann": 1.0, "carl": 1.0}, FedBuff(buffer=2), rounds=3)
    # carl is still due when the server steps at 1 s; ann and bob begin after, so that bob is due at 2 s.
    assert [told(plan) for plan in found] == [
        (1.0, {"ann": 0, "bob": 0}),
        (2.0, {"ann": 0, "carl": 1}),
        (3.0, {"ann": 0, "bob": 1}),
    ]


@given(
    st.lists(st.sampled_from([0.0, 1.0, 1.5, 4.0]), min_size=2, max_size=6),
    st.integers(1, 3),
    st.integers(1, 6),
)
def test_what_holds_at_every_update(durations: list[float], buffer: int, cohort: int) -> None:
    seconds = {f"w{number}": duration for number, duration in enumerate(durations)}
    concurrency = min(max(buffer, cohort), len(seconds))
    buffer = min(buffer, concurrency)
    now = 0.0
    for plan in plans(seconds, FedBuff(buffer=buffer), rounds=6, cohort_size=concurrency):
        assert len(plan.workers) == buffer == len(set(plan.workers))
        under_way = [flight.worker for flight in plan.flights.under_way]
        assert len(under_way) == len(set(under_way)) <= concurrency
        assert not set(under_way) & set(plan.workers)
        assert plan.flights.now >= now
        assert plan.flights.versions <= set(range(plan.round + 1))
        now = plan.flights.now


@pytest.mark.parametrize("cohort_size", [3, None])
def test_a_buffer_of_the_whole_cohort_without_delay_is_the_cohort_of_a_round(cohort_size: int | None) -> None:
    names = [f"w{number}" for number in range(6)]
    batches = dict.fromkeys(names, 2)
    terms: dict[str, Any] = {"cohort_size": cohort_size, "rounds_per_epoch": None, "seed": 0}
    usual = AveragedSchedule(batches, LocalWork(), **terms)
    found = plans(dict.fromkeys(names, 0.0), FedBuff(buffer=cohort_size or 6), 8, cohort_size)
    assert [plan.workers for plan in found] == [usual.plan(round, {}).workers for round in range(8)]
    assert all(set(told(plan)[1].values()) == {0} for plan in found)


def test_scales_are_those_of_the_papers() -> None:
    assert [Constant()(t) for t in (0, 9)] == [1, 1]
    assert [Polynomial(a=1.0)(t) for t in (0, 1, 3)] == [1, 1 / 2, 1 / 4]
    assert [Hinge(a=10, b=4)(t) for t in (0, 4, 5, 6)] == [1, 1, 1 / 11, 1 / 21]
    assert FedBuff().staleness == Polynomial(a=0.5)


def test_an_arrival_without_delay_is_taken_to_the_bit() -> None:
    now, end = [torch.tensor([0.1])], [torch.tensor([0.3])]
    for server in (FedBuff(), FedAsync(alpha=1.0)):
        assert server.arrived(now, now, end, 0) is end


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: FedAsync(alpha=0.0), ("alpha=0.0", "positive", "0.6")),
        (lambda: FedAsync(alpha=1.1), ("alpha=1.1", "at most 1")),
        (lambda: FedAsync(staleness=0.5), ("Polynomial(a=0.5)", "got 0.5")),
        (lambda: FedBuff(buffer=0), ("buffer=0", "at least 1")),
        (lambda: FedBuff(staleness="late"), ("Polynomial(a=0.5)", "got 'late'")),
        (lambda: Polynomial(a=-1), ("a=-1", "non-negative")),
        (lambda: Hinge(b=-1), ("b=-1", "non-negative")),
        (lambda: Polynomial()(-1), ("staleness=-1", "at least 0")),
    ],
)
def test_what_cannot_be_is_refused(make: Any, says: tuple[str, ...]) -> None:
    with pytest.raises((TypeError, ValueError)) as error:
        make()
    assert all(part in str(error.value) for part in says), error.value
