"""Who of a cohort gets through: shares, parts and chances, as pure functions of seed, round and worker."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.algorithms import (
    Assignment,
    AveragedSchedule,
    Forecast,
    LocalWork,
    Participation,
    Plan,
    Pool,
    Stragglers,
    WorkerDropout,
)

NAMES = [f"worker-{number}" for number in range(10)]


def plan(round: int = 0, steps: int = 20, cohort: int = 10, seed: int = 0) -> Plan:
    return Plan(round, tuple(Assignment(name, 0, steps) for name in NAMES[:cohort]), seed)


@given(st.floats(0, 1), st.integers(0, 10), st.integers(0, 99))
def test_the_share_of_stragglers_is_that_of_the_paper(share: float, cohort: int, number: int) -> None:
    whole = plan(number, cohort=cohort)
    dropped = Stragglers(share, drop=True).outcome(whole, Forecast())
    assert len(dropped.workers) == round((1 - share) * cohort)
    assert {*dropped.workers, *dropped.absent} == set(whole.workers)
    taken = Stragglers(share).outcome(whole, Forecast())
    assert taken.workers == whole.workers
    # Those that are dropped are the same that are slow.
    assert {one.worker for one in taken.assignments if one.steps < 20} <= set(dropped.absent)


def test_stragglers_do_any_number_of_epochs_from_one_to_all() -> None:
    """A thousand draws from 1 to 5: each number comes 200 times, give or take 13."""
    pieces = dict.fromkeys(NAMES, 4)
    done = Counter(
        one.steps
        for r in range(100)
        for one in Stragglers(1.0).outcome(plan(r), Forecast(pieces)).assignments
    )
    assert set(done) == {4, 8, 12, 16, 20}
    assert all(abs(count - 200) < 65 for count in done.values())


def test_work_of_one_epoch_is_cut_in_steps_and_work_of_several_between_epochs() -> None:
    for work, pieces in ((LocalWork(epochs=1), 1), (LocalWork(steps=9), 1), (LocalWork(epochs=3), 7)):
        schedule = AveragedSchedule(
            {"a": 7, "b": 7},
            work,
            cohort_size=None,
            rounds_per_epoch=None,
            seed=0,
            participation=[Stragglers(1.0)],
        )
        steps = {one.steps for round in range(30) for one in schedule.plan(round, {}).assignments}
        assert steps == set(range(pieces, work.in_steps(7) + 1, pieces))


def test_workers_drop_out_by_chance_by_name_and_by_trace(tmp_path: Path) -> None:
    gone = sum(len(WorkerDropout(0.3).outcome(plan(r), Forecast()).absent) for r in range(100))
    assert 230 < gone < 370  # 300 of a thousand, give or take 14
    one = WorkerDropout({"worker-3": 1.0, "worker-4": 0.0}).outcome(plan(), Forecast())
    assert one.absent == {"worker-3": "dropped out"}
    file = tmp_path / "trace.csv"
    file.write_text("round,worker\n0,worker-1\n1,worker-2\n")
    for trace in (file, [["worker-1"], ["worker-2"]], lambda round: [f"worker-{round % 2 + 1}"]):
        rounds = (WorkerDropout(trace=trace).outcome(plan(r), Forecast()) for r in range(3))
        assert [list(round.absent) for round in rounds] == [["worker-1"], ["worker-2"], ["worker-1"]]


def test_rounds_and_seeds_differ_and_the_order_of_the_cohort_does_not_matter() -> None:
    for part in (Stragglers(0.5, drop=True), WorkerDropout(0.5)):
        whole = plan()
        reverse = whole.but(whole.assignments[::-1], {})
        assert set(part.outcome(reverse, Forecast()).workers) == set(part.outcome(whole, Forecast()).workers)
        outcomes = {part.outcome(plan(r, seed=s), Forecast()).workers for r in range(4) for s in range(2)}
        assert len(outcomes) > 4


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Stragglers(1.5), ("share=1.5", "at most 1", "Give 0.9")),
        (lambda: Stragglers(-0.1), ("share=-0.1", "non-negative")),
        (lambda: Stragglers(0.5, drop="yes"), ("drop must be True or False", "'yes'")),
        (lambda: WorkerDropout(), ("neither is given", "WorkerDropout(rate=0.1)")),
        (lambda: WorkerDropout(0.1, [["a"]]), ("both are given", "WorkerDropout(rate=0.1)")),
        (lambda: WorkerDropout(2), ("rate=2", "at most 1", "Give 0.1")),
        (lambda: WorkerDropout({"a": -1}), ("rate=-1", "non-negative")),
        (lambda: WorkerDropout(trace=[]), ("trace has no round",)),
        (lambda: WorkerDropout(trace=[["z"]]).check(Pool(NAMES, {})), ("['z']", "no such workers")),
        (lambda: Stragglers(0.5).check(Pool(["a"], {})), ("only one worker", "Use more workers")),
    ],
)
def test_what_cannot_be_is_refused(make: Any, says: tuple[str, ...]) -> None:
    with pytest.raises((TypeError, ValueError)) as error:
        make()
    assert all(part in str(error.value) for part in says), error.value


def test_the_identity_says_what_decides_the_outcome() -> None:
    parts: list[Participation] = [Stragglers(0.5), Stragglers(0.5, drop=True), WorkerDropout(0.5)]
    assert len({part.identity for part in parts}) == 3
