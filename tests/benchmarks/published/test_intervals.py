"""Intervals against SciPy's own, and crossings by hand."""

from __future__ import annotations

from math import isnan

import pytest
from scipy import stats

from benchmarks.published.intervals import interval, rounds_to


def test_the_interval_is_students() -> None:
    values = [1.0, 2.0, 4.0]
    ours = interval(values)
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((low, high))


def test_one_draw_has_no_width() -> None:
    assert isnan(interval([3.0]).half)


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.5, 0.8], 3.0),  # half way from 0.5 after two rounds to 0.8 after four
        ([0.7, 0.8], pytest.approx(2 * 0.65 / 0.7)),
        ([0.5, 0.6], None),
    ],
)
def test_a_crossing_lies_on_the_line_between_two_tests(
    accuracies: list[float], expected: float | None
) -> None:
    assert rounds_to(0.65, [2, 4], accuracies) == expected


def test_a_curve_that_falls_goes_on_from_its_best() -> None:
    # From the best so far, 0.6, which still stands after four rounds.
    assert rounds_to(0.7, [2, 4, 6], [0.6, 0.2, 0.8]) == pytest.approx(5.0)
