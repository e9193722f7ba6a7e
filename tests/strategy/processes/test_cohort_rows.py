"""The samples of two cohorts lie in shared memory at a time."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Subset, TensorDataset

from fedlightning.data import LoaderSettings
from fedlightning.data.pool import RowPool
from fedlightning.strategy.processes.cohort_rows import CohortRows

NAMES = [f"worker-{number}" for number in range(8)]


def pool_of(counts: list[int]) -> RowPool:
    """Return workers with so many samples each, in no order, of a part of a data set."""
    total = sum(counts)
    x = torch.arange(2.0 * (total + 1)).view(-1, 2)
    data = Subset(TensorDataset(x, x[:, 0] > 5), torch.randperm(total).add(1).tolist())
    parts = np.split(np.random.default_rng(0).permutation(total), np.cumsum(counts)[:-1])
    pool = RowPool.of(data, dict(zip(NAMES, parts, strict=False)), LoaderSettings(batch_size=2))
    assert pool is not None
    return pool


def test_a_cohort_reads_there_what_it_reads_at_home() -> None:
    pool = pool_of([3, 5, 4])
    cohort = ["worker-2", "worker-0"]
    there = CohortRows(pool).next_place(rows=7).take(pool, cohort)
    where = (cohort, np.array([1, 0]), np.array([2, 2]))
    for home, copied in zip(pool.tensors, there.tensors, strict=True):
        expected = home[pool.rows(*where, seed=3)]
        assert torch.equal(copied[there.rows(*where, seed=3)], expected)
    assert there.samples(cohort).tolist() == [4, 3]


def test_the_cohort_before_stays_as_it_is() -> None:
    pool = pool_of([2] * 8)
    rows = CohortRows(pool)
    first = rows.next_place(2).take(pool, NAMES[:1])
    kept = first.tensors[0][:2].clone()
    second = rows.next_place(2).take(pool, NAMES[1:2])
    assert torch.equal(first.tensors[0][:2], kept)
    assert rows.next_place(2).take(pool, NAMES[2:3]).tensors[0] is first.tensors[0]
    assert second.tensors[0] is not first.tensors[0]


def test_a_place_that_is_too_small_makes_way_for_a_larger_one() -> None:
    pool = pool_of([2, 2, 2, 6, 2, 2, 6, 2])
    rows = CohortRows(pool)
    small, other = rows.next_place(2), rows.next_place(2)
    assert not rows.has_room(6)
    large = rows.next_place(6)
    assert rows.places == [other, large]
    assert small.rows < large.rows
    assert torch.equal(
        large.take(pool, ["worker-3"]).tensors[0][:6], pool.tensors[0][pool.held_by(["worker-3"])]
    )
