from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.data.shuffling import SMALL, shuffled, shuffled_together
from fedlightning.workers.random import derive_seeds

SEEDS = st.integers(0, 2**64 - 1)


def drawn(size: int, count: int, purpose: str = "shuffle") -> torch.Tensor:
    return shuffled_together(size, derive_seeds(0, purpose, each=[range(count)]))


@given(st.sampled_from([0, 1, 2, 30, SMALL - 1, SMALL, SMALL + 1]), st.lists(SEEDS, min_size=1, max_size=4))
def test_an_order_is_the_same_alone_and_among_others(size: int, seeds: list[int]) -> None:
    together = shuffled_together(size, np.array(seeds, dtype=np.uint64))
    for seed, order in zip(seeds, together, strict=True):
        assert torch.equal(order, shuffled(size, seed))
        assert order.dtype == torch.int64
        assert order.sort().values.tolist() == list(range(size))


def test_orders_never_change() -> None:
    # Other ones would change the result of every seeded run that anybody has published.
    assert shuffled(8, 2**63 + 7).tolist() == [1, 2, 4, 7, 0, 3, 5, 6]


def test_all_orders_are_equally_likely() -> None:
    count = 24 * 1000
    codes = (drawn(4, count) * torch.tensor([1000, 100, 10, 1])).sum(1)
    times = [int((codes == int("".join(map(str, order)))).sum()) for order in permutations(range(4))]
    # Chi-squared with 23 degrees of freedom: above 68 with a chance of 2e-6.
    assert sum(times) == count
    assert sum((n - 1000) ** 2 for n in times) / 1000 < 68


@pytest.mark.parametrize("size", [7, 60, SMALL])
def test_any_sample_may_come_at_any_place(size: int) -> None:
    count = 20_000
    orders = drawn(size, count).double()
    mean, deviation = (size - 1) / 2, ((size**2 - 1) / 12) ** 0.5
    off = (orders.mean(0) - mean) / (deviation / count**0.5)
    assert off.abs().max() < 5.5


def test_orders_of_different_workers_are_independent() -> None:
    size, count = 30, 20_000
    mean, deviation = (size - 1) / 2, ((size**2 - 1) / 12) ** 0.5
    orders = (drawn(size, count).double() - mean) / deviation
    correlation = (orders[:-1] * orders[1:]).mean()
    assert abs(correlation) < 5 / (size * count) ** 0.5
    within = (orders[:, :-1] * orders[:, 1:]).mean() + 1 / (size - 1)
    assert abs(within) < 5 / (size * count) ** 0.5


def test_seeds_that_lie_close_to_one_another_give_orders_that_do_not() -> None:
    seeds = np.uint64(2**63) + np.arange(20_000, dtype=np.uint64)
    orders = shuffled_together(30, seeds).double()
    correlation = ((orders[:-1] - 14.5) * (orders[1:] - 14.5)).mean() / ((30**2 - 1) / 12)
    assert abs(correlation) < 5 / (30 * 20_000) ** 0.5
