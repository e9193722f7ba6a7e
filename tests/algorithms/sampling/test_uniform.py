"""Uniform cohorts: the same chance for everybody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.algorithms import UniformSampling, uniform_cohort
from tests.algorithms.sampling.drawing import BOUND, cohorts, deviations, participations, pool_of


@given(st.sets(st.text("abc", min_size=1), min_size=2), st.integers(0, 2**32), st.integers(0, 1000))
def test_cohorts_do_not_depend_on_the_order_of_names(names: set[str], seed: int, number: int) -> None:
    listed = list(names)
    size = max(1, len(listed) // 2)
    cohort = uniform_cohort(listed, size, seed=seed, round=number)
    assert cohort == uniform_cohort(listed[::-1], size, seed=seed, round=number)
    assert len(set(cohort)) == size
    assert set(cohort) <= names


@pytest.mark.parametrize("size", [1, 2, 4])
def test_everybody_takes_part_equally_often(size: int) -> None:
    drawn = cohorts(UniformSampling(), pool_of(5), size, 4000, seed=1)
    assert all(len(cohort.workers) == size for cohort in drawn)
    assert all(deviations(n, 4000, size / 5) < BOUND for n in participations(drawn).values())


def test_pairs_are_drawn_equally_often() -> None:
    drawn = cohorts(UniformSampling(), pool_of(5), 2, 4000, seed=2)
    for pair in {cohort.workers for cohort in drawn}:
        assert deviations(sum(cohort.workers == pair for cohort in drawn), 4000, 1 / 10) < BOUND


def test_rounds_and_seeds_differ() -> None:
    drawn = cohorts(UniformSampling(), pool_of(50), 5, 20)
    assert len({cohort.workers for cohort in drawn}) == 20
    assert drawn != cohorts(UniformSampling(), pool_of(50), 5, 20, seed=1)


def test_without_a_size_all_take_part_weighted_by_samples() -> None:
    (cohort,) = cohorts(UniformSampling(), pool_of(5), None, 1)
    assert cohort.workers == tuple(pool_of(5).workers)
    assert cohort.weights is None
