"""Poisson sampling: independent choices, cohorts of chance sizes, empty ones among them."""

from __future__ import annotations

from collections import Counter
from math import comb

import pytest

from fedlightning.algorithms import PoissonSampling
from tests.algorithms.sampling.drawing import BOUND, cohorts, deviations, participations, pool_of

ROUNDS = 5000


@pytest.mark.parametrize(("sampling", "size"), [(PoissonSampling(0.3), None), (PoissonSampling(), 3)])
def test_workers_choose_independently(sampling: PoissonSampling, size: int | None) -> None:
    drawn = cohorts(sampling, pool_of(10), size, ROUNDS)
    assert all(deviations(count, ROUNDS, 0.3) < BOUND for count in participations(drawn).values())
    together = Counter(
        (one, other) for cohort in drawn for one in cohort.workers for other in cohort.workers if one < other
    )
    assert len(together) == 45
    assert all(deviations(count, ROUNDS, 0.09) < BOUND for count in together.values())


def test_sizes_are_binomial() -> None:
    sizes = Counter(len(cohort.workers) for cohort in cohorts(PoissonSampling(0.3), pool_of(6), None, ROUNDS))
    for size in range(7):
        assert deviations(sizes[size], ROUNDS, comb(6, size) * 0.3**size * 0.7 ** (6 - size)) < BOUND
    assert sizes[0] > 0, "a cohort may be empty"


def test_a_rate_of_one_takes_everybody() -> None:
    assert cohorts(PoissonSampling(1.0), pool_of(4), None, 1)[0].workers == tuple(pool_of(4).workers)


@pytest.mark.parametrize("rate", [0, -0.1, 1.5, float("nan")])
def test_a_rate_is_a_chance(rate: float) -> None:
    with pytest.raises(ValueError, match="rate="):
        PoissonSampling(rate)


@pytest.mark.parametrize(("rate", "size"), [(0.5, 3), (None, None)])
def test_the_mean_is_given_once(rate: float | None, size: int | None) -> None:
    with pytest.raises(ValueError, match="must be given once"):
        PoissonSampling(rate).check_size(size)
