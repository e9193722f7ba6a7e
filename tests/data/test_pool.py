from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Subset, TensorDataset

from fedlightning.data.loader_settings import LoaderSettings
from fedlightning.data.pool import RowPool

NAMES = ("a", "b", "c")


def pool_of(sizes: Sequence[int], settings: LoaderSettings, whole: bool = True) -> RowPool:
    data = TensorDataset(torch.arange(100))
    dataset = data if whole else Subset(data, list(range(99, -1, -1)))
    ends = np.cumsum(sizes)
    parts = [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    pool = RowPool.of(dataset, dict(zip(NAMES, parts, strict=True)), settings)
    assert pool is not None
    return pool


@given(
    sizes=st.lists(st.integers(4, 20), min_size=3, max_size=3),
    spans=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), min_size=3, max_size=3),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    whole=st.booleans(),
)
def test_rows_are_those_of_the_shards(
    sizes: list[int], spans: list[tuple[int, int]], shuffle: bool, drop_last: bool, whole: bool
) -> None:
    settings = LoaderSettings(batch_size=4, shuffle=shuffle, drop_last=drop_last)
    pool = pool_of(sizes, settings, whole)
    first, counts = zip(*spans, strict=True)
    rows = pool.rows(NAMES, first, counts, seed=3)
    for name, own, start, count in zip(NAMES, rows, first, counts, strict=True):
        expected = pool.shard(name).rows(start, count, seed=3, worker=name)
        assert own[: len(expected)].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("dataset", "settings"),
    [
        ([1, 2, 3], LoaderSettings(batch_size=1)),
        (TensorDataset(torch.arange(3)), LoaderSettings(batch_size=1, pin_memory=True)),
        (TensorDataset(torch.arange(3)), LoaderSettings(batch_size=1, collate_fn=list)),
    ],
    ids=["no tensors", "pinned", "collated"],
)
def test_there_is_none_where_batches_are_more_than_rows(dataset: object, settings: LoaderSettings) -> None:
    assert RowPool.of(dataset, {"a": np.arange(3)}, settings) is None  # type: ignore[arg-type]  # a list is one
