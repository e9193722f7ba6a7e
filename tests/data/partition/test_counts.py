from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.data.partition.counts import counts_from_shares, lift_small_workers

shares = st.lists(st.floats(0, 1e6), min_size=1, max_size=30).filter(lambda values: sum(values) > 0)


@given(shares, st.integers(0, 10_000))
def test_counts_add_up_and_are_within_one_of_exact(values: list[float], total: int) -> None:
    counts = counts_from_shares(np.array(values), total)
    exact = np.array(values) / np.sum(values) * total
    assert counts.sum() == total
    assert (counts >= 0).all()
    assert (np.abs(counts - exact) <= 1 + 1e-6).all()


@given(st.lists(st.integers(0, 20), min_size=1, max_size=10), st.integers(0, 99))
def test_lifting_keeps_all_samples_and_reaches_the_minimum(sizes: list[int], seed: int) -> None:
    samples = np.arange(sum(sizes))
    parts = np.split(samples, np.cumsum(sizes)[:-1])
    minimum = sum(sizes) // len(sizes)
    lifted = lift_small_workers(parts, minimum, np.random.default_rng(seed))
    assert sorted(np.concatenate(lifted).tolist()) == samples.tolist()
    assert min(len(part) for part in lifted) >= minimum


def test_nothing_moves_where_nothing_must() -> None:
    parts = [np.array([2, 0]), np.array([1])]
    assert all(
        a is b for a, b in zip(lift_small_workers(parts, 1, np.random.default_rng(0)), parts, strict=True)
    )
