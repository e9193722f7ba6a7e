"""Availability: nobody takes part who is offline, and chances are even among those who are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedlightning.algorithms import OnlineWorkers, RoundRobin, UniformSampling, WeightedSampling
from tests.algorithms.sampling.drawing import BOUND, cohorts, deviations, participations, pool_of

DAY = {0: ["w00", "w01", "w02"], 2: ["w03"]}


def test_only_those_online_take_part() -> None:
    drawn = cohorts(OnlineWorkers(DAY), pool_of(4), 2, 3000)
    for number, cohort in enumerate(drawn):
        assert set(cohort.workers) <= set(DAY.get(number % 3, []))
        assert len(cohort.workers) == [2, 0, 1][number % 3]
    counts = participations(drawn[::3])
    assert all(deviations(counts[name], 1000, 2 / 3) < BOUND for name in DAY[0])


@pytest.mark.parametrize("trace", [[["w00", "w01", "w02"], [], ["w03"]], lambda r: DAY.get(r % 3, [])])
def test_lists_and_functions_say_the_same(trace: object) -> None:
    same = cohorts(OnlineWorkers(trace), pool_of(4), 2, 20)
    assert same == cohorts(OnlineWorkers(DAY), pool_of(4), 2, 20)


def test_a_file_says_the_same(tmp_path: Path) -> None:
    rows = [f"{number},{name},ignored" for number, names in DAY.items() for name in names]
    (tmp_path / "trace.csv").write_text("\n".join(["round,worker,note", *rows]))
    from_file = OnlineWorkers(tmp_path / "trace.csv")
    assert from_file == OnlineWorkers(DAY)
    assert from_file.identity == OnlineWorkers(DAY).identity
    (tmp_path / "trace.csv").unlink()
    assert cohorts(from_file, pool_of(4), 2, 20) == cohorts(OnlineWorkers(DAY), pool_of(4), 2, 20)


def test_a_way_of_sampling_draws_from_those_online() -> None:
    drawn = cohorts(OnlineWorkers([["w00", "w02"]], then=WeightedSampling()), pool_of(4), 5, 9)
    assert all(sum(cohort.weights or ()) == 5 for cohort in drawn)
    assert {name for cohort in drawn for name in cohort.workers} == {"w00", "w02"}


def test_what_it_is_made_of_says_what_it_needs() -> None:
    assert OnlineWorkers(DAY, then=WeightedSampling()).needs_average
    assert not OnlineWorkers(DAY).needs_average
    assert OnlineWorkers(DAY, then=RoundRobin()).keeps_order
    assert OnlineWorkers(DAY).mean_size(pool_of(4), 2) == 1.0
    assert OnlineWorkers(lambda r: []).mean_size(pool_of(4), 2) == 2


@pytest.mark.parametrize(
    ("trace", "match"),
    [
        ({}, "trace has no round"),
        ([], "trace has no round"),
        ({-1: ["w00"]}, "the round -1; rounds are counted from 0"),
        ({0: "w00"}, r"trace\[0\]='w00' must be a list of names"),
    ],
)
def test_traces_that_make_no_sense(trace: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        OnlineWorkers(trace)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("time,worker\n0,w00", r"has the columns \['time', 'worker'\], expected round, worker"),
        ("round,worker\nnoon,w00", "line 2: the round is 'noon', expected a number from 0"),
        ("", r"has the columns \[\]"),
    ],
)
def test_files_that_make_no_sense(text: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(text)
    with pytest.raises(ValueError, match=match):
        OnlineWorkers(str(tmp_path / "trace.csv"))


def test_a_trace_is_of_the_workers_that_are_there() -> None:
    with pytest.raises(ValueError, match=r"trace names \['w03'\], and there are no such workers"):
        OnlineWorkers(DAY).check(pool_of(3), None)
    with pytest.raises(ValueError, match="trace has nobody online in any of its 2 rounds"):
        OnlineWorkers([[], []]).check(pool_of(3), None)
    with pytest.raises(TypeError, match="then must be a way of sampling"):
        OnlineWorkers(DAY, then=UniformSampling)
