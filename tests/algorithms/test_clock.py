"""The simulated clock: profiles by seed and worker, and seconds worked by hand."""

from __future__ import annotations

from math import inf
from statistics import median
from typing import Any

import pytest

from fedlightning.algorithms import LogNormal, SimulatedClock, Uniform, WorkerProfile


def test_a_visit_is_the_way_there_the_work_and_the_way_back() -> None:
    profile = WorkerProfile(seconds_per_step=0.5, seconds_per_sample=0.01, down=1000, up=200, latency=0.25)
    # 1/4 + 2000/1000 + (4 steps of 1/2 + 40 samples of 1/100) + 1/4 + 100/200
    assert profile.seconds(steps=4, samples=40, bytes_down=2000, bytes_up=100) == pytest.approx(5.4)
    assert WorkerProfile().seconds(steps=4, samples=40, bytes_down=2000, bytes_up=100) == 0


def test_profiles_belong_to_seed_and_worker() -> None:
    clock = SimulatedClock(LogNormal(2.0, 1.0), up=Uniform(10, 20), down={"a": 5.0, "b": inf}, latency=0.1)
    assert clock.profile("a", seed=0) == clock.profile("a", seed=0)
    assert clock.profile("a", seed=0).seconds_per_step != clock.profile("a", seed=1).seconds_per_step
    assert clock.profile("a", seed=0).up != clock.profile("b", seed=0).up
    assert (clock.profile("a", 0).down, clock.profile("b", 0).down, clock.profile("b", 0).latency) == (
        5,
        inf,
        0.1,
    )


def test_distributions_are_what_they_say() -> None:
    """Of 2001 draws the median of logarithms lies within 4 standard errors, 4 * 1.25 / sqrt(2001)."""
    clock = SimulatedClock(LogNormal(2.0, 1.0), up=Uniform(10, 20))
    profiles = [clock.profile(str(number), seed=0) for number in range(2001)]
    assert 2.0 / 1.12 < median(profile.seconds_per_step for profile in profiles) < 2.0 * 1.12
    ups = [profile.up for profile in profiles]
    assert 10 <= min(ups) < 10.1 < 19.9 < max(ups) <= 20
    assert SimulatedClock(LogNormal(2.0, 0.0)).profile("a", 0).seconds_per_step == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SimulatedClock(-1), ("seconds_per_step=-1", "non-negative")),
        (lambda: SimulatedClock(up=0), ("up=0", "positive")),
        (lambda: SimulatedClock(inf), ("seconds_per_step=inf", "finite")),
        (lambda: SimulatedClock(down="fast"), ("down='fast' must be a number",)),
        (lambda: SimulatedClock(latency={"a": -1}), ("latency=-1", "non-negative")),
        (lambda: LogNormal(0, 1), ("median=0", "positive")),
        (lambda: LogNormal(1, -1), ("sigma=-1", "non-negative")),
        (lambda: Uniform(2, 1), ("high=1 is below low=2", "Exchange")),
        (
            lambda: SimulatedClock(up={"a": 1}).check(["a", "b"]),
            ("['b']", "each of the 2"),
        ),
        (lambda: SimulatedClock(up={"a": 1, "c": 1}).check(["a"]), ("['c']", "nobody else")),
    ],
)
def test_what_cannot_be_is_refused(make: Any, says: tuple[str, ...]) -> None:
    with pytest.raises((TypeError, ValueError)) as error:
        make()
    assert all(part in str(error.value) for part in says), error.value
