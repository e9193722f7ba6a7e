from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.strategy import RoundRecord, VisitRecord
from fedlightning.strategy.record_columns import RecordColumns
from fedlightning.strategy.records import RoundTimes

NAMES = st.sampled_from(["alice", "bob", "carol"])
COUNTS = st.integers(0, 2**40)
NUMBERS = st.floats(allow_nan=False)
METRICS = st.dictionaries(st.sampled_from(["acc", "loss", "val/acc"]), NUMBERS)

ROUNDS = st.builds(
    RoundRecord,
    COUNTS,
    st.lists(NAMES, max_size=3).map(tuple),
    COUNTS,
    st.none() | NUMBERS,
    METRICS,
    COUNTS,
    COUNTS,
    METRICS,
    st.dictionaries(NAMES, st.text(max_size=3), max_size=2),
    st.none() | NUMBERS,
)
VISITS = st.builds(
    VisitRecord,
    COUNTS,
    NAMES,
    COUNTS,
    COUNTS,
    st.none() | NUMBERS,
    METRICS,
    COUNTS,
    COUNTS,
    st.none() | NUMBERS,
    st.none() | COUNTS,
)


@given(st.lists(ROUNDS))
def test_rounds_come_out_as_they_went_in(rounds: list[RoundRecord]) -> None:
    columns = RecordColumns(RoundRecord)
    columns.extend(rounds)
    assert list(columns) == rounds
    assert [list(record.metrics) for record in columns] == [list(record.metrics) for record in rounds]


@given(st.lists(VISITS, min_size=1))
def test_visits_come_out_one_at_a_time_and_in_columns(visits: list[VisitRecord]) -> None:
    columns = RecordColumns(VisitRecord)
    columns.extend(visits)
    assert columns[-1] == visits[-1]
    assert columns[1:3] == visits[1:3]
    for field in fields(VisitRecord):
        assert columns.values(field.name) == [getattr(visit, field.name) for visit in visits]


@given(st.lists(VISITS, min_size=1), VISITS)
def test_the_last_one_can_be_replaced(visits: list[VisitRecord], other: VisitRecord) -> None:
    columns = RecordColumns(VisitRecord)
    columns.extend(visits)
    assert columns.pop() == visits[-1]
    columns.append(other)
    assert list(columns) == [*visits[:-1], other]


def test_a_record_keeps_the_kinds_of_its_numbers() -> None:
    columns = RecordColumns(VisitRecord)
    columns.append(VisitRecord(3, "bob", 10, 2, 0.5, {"acc": 1.0}, 100, 200, None, 4))
    kinds: list[Any] = [type(getattr(columns[0], field.name)) for field in fields(VisitRecord)]
    assert kinds == [int, str, int, int, float, dict, int, int, type(None), int]


def test_there_is_none_beyond_the_end() -> None:
    columns = RecordColumns(RoundTimes)
    with pytest.raises(IndexError):
        columns[0]
    with pytest.raises(IndexError):
        columns[-1]


def test_records_that_are_alike_cost_no_more_than_their_numbers() -> None:
    everybody = [f"worker-{number}" for number in range(100)]
    columns = RecordColumns(RoundRecord)
    columns.extend(RoundRecord(number, tuple(everybody), 1, 0.5, {}, 0, 0) for number in range(3))
    assert len({id(record.workers) for record in columns}) == 1
