"""Workers in turn: nobody takes part more often than anybody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.algorithms import FixedOrder, RoundRobin
from tests.algorithms.sampling.drawing import cohorts, participations, pool_of


@given(st.integers(1, 15), st.integers(1, 15), st.integers(1, 40))
def test_nobody_is_a_round_ahead(workers: int, size: int, rounds: int) -> None:
    pool = pool_of(workers)
    counts = participations(cohorts(RoundRobin(), pool, size, rounds))
    assert sum(counts.values()) == rounds * min(size, workers)
    assert max(counts.values()) - min(counts[name] for name in pool.workers) <= 1


def test_a_fixed_order_is_kept() -> None:
    drawn = cohorts(FixedOrder(["w03", "w00", "w02"]), pool_of(5), 2, 3)
    assert [cohort.workers for cohort in drawn] == [("w03", "w00"), ("w02", "w03"), ("w00", "w02")]


def test_without_a_size_the_order_is_the_cohort() -> None:
    drawn = cohorts(FixedOrder(["w03", "w00"]), pool_of(5), None, 2)
    assert [cohort.workers for cohort in drawn] == [("w03", "w00")] * 2


def test_orders_that_make_no_sense() -> None:
    for order in ([], "w00"):
        with pytest.raises(ValueError, match="must list the names of workers"):
            FixedOrder(order)
    with pytest.raises(ValueError, match=r"names \['a'\] more than once"):
        FixedOrder(["a", "b", "a"])
    with pytest.raises(ValueError, match=r"order names \['eve'\]"):
        FixedOrder(["w00", "eve"]).check(pool_of(2), None)
    with pytest.raises(ValueError, match="cohort_size=3 is larger than the order of 2 workers"):
        FixedOrder(["w00", "w01"]).check_size(3)
