"""Visits of chunk after chunk have their batches drawn for many at once, and each has its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from fedlightning.data.loader_settings import LoaderSettings
from fedlightning.data.pool import RowPool
from fedlightning.local.vectorised import pooled
from fedlightning.local.vectorised.pooled import PooledErrands
from fedlightning.local.visit import Visit

CPU = torch.device("cpu")
# In batches of four: epochs of two, three, one, two, three and two batches.
SIZES = [8, 10, 3, 7, 12, 8]


def errands_of(sizes: Sequence[int], first: Sequence[int]) -> PooledErrands:
    ends = np.cumsum(sizes)
    names = [f"worker-{number}" for number in range(len(sizes))]
    parts = [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    data = TensorDataset(torch.arange(int(ends[-1])))
    pool = RowPool.of(data, dict(zip(names, parts, strict=True)), LoaderSettings(batch_size=4, shuffle=True))
    assert pool is not None
    every = np.array([-(-size // 4) for size in sizes])
    visit = Visit(0, 0, 1, seed=0)
    return PooledErrands(pool, 7, visit, names, np.array(first), every, np.array(sizes), every)


def read(errands: PooledErrands) -> Iterator[Any]:
    """Yield who reads what, and which number of a batch, step by step."""
    batches = errands.batches(numbered=True, device=CPU)
    for step in range(int(errands.steps.max())):
        for batch in batches.of_step(step, int((errands.steps > step).sum())):
            yield step, batch.rows, batch.batch_idx, [tensor.tolist() for tensor in batch.tensors]


@pytest.mark.parametrize("rows", [1, 60, 1 << 16])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_batches_are_those_that_a_chunk_reads_by_itself(
    size: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooled, "_ROWS_AHEAD", rows)
    errands = errands_of(SIZES, first=[0, 2, 1, 0, 4, 3])
    chunks = errands.chunks(size)
    together = list(errands.of_chunks(chunks))
    assert [own.workers for own in together] == [errands.some(numbers).workers for numbers in chunks]
    for numbers, own in zip(chunks, together, strict=True):
        assert list(read(own)) == list(read(errands.some(numbers)))
        # What is asked of other steps is drawn for them.
        assert list(read(own.shortened(1))) == list(read(errands.some(numbers).shortened(1)))


@pytest.mark.parametrize(("rows", "expected"), [(1, [1] * 6), (3 * 4 * 4, [4, 2]), (1 << 16, [6])])
def test_batches_are_drawn_for_as_many_visits_as_are_little_to_keep(
    rows: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooled, "_ROWS_AHEAD", rows)
    drawn: list[int] = []
    draw = RowPool.rows

    def noted(self: RowPool, workers: Sequence[str], *args: Any, **kwargs: Any) -> torch.Tensor:
        drawn.append(len(workers))
        return draw(self, workers, *args, **kwargs)

    monkeypatch.setattr(RowPool, "rows", noted)
    errands = errands_of(SIZES, first=[0] * 6)
    for own in errands.of_chunks(errands.chunks(1)):
        list(read(own))
    assert drawn == expected
