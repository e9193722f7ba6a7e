"""What visits that were carried out together have come to goes into the mean of a cohort without detours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD

from fedlightning.algorithms import UpdateMean
from fedlightning.local.vectorised.reports import ChunkReports
from fedlightning.local.vectorised.stack import Places, Stack
from fedlightning.local.vectorised.training import TrainedChunk
from fedlightning.strategy.aggregation import AtController, updates_of


def chunks_of(module: nn.Module, sizes: list[int]) -> list[TrainedChunk]:
    torch.manual_seed(0)
    chunks = []
    for size in sizes:
        stack = Stack(Places(module, SGD(module.parameters(), lr=0.1)), size, by_channel=size == 1)
        for own in stack.tensors:
            own.copy_(torch.randn(own.shape) * 3)
        none = np.zeros(size, dtype=np.int64)
        reports = ChunkReports(none, torch.zeros(size), none, none == 0, [])
        chunks.append(TrainedChunk(np.arange(size), reports, stack))
    return chunks


@pytest.mark.parametrize("sizes", [[1], [1, 1, 1], [3, 2]], ids=str)
@pytest.mark.parametrize("module", [nn.Conv2d(2, 3, 3), nn.BatchNorm1d(4).half()], ids=["plain", "buffers"])
def test_a_chunk_that_is_one_update_is_not_copied_before(
    module: nn.Module, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = chunks_of(module, sizes)
    expected, copied = UpdateMean(), list[int]()
    add = UpdateMean.add

    def noted(self: UpdateMean, *args: Any) -> None:
        copied.append(args[2])
        add(self, *args)

    aggregation = AtController(None, ())
    with monkeypatch.context() as patched:
        patched.setattr(UpdateMean, "add", noted)
        for block, chunk in enumerate(chunks):
            aggregation.add_chunk(chunk, {row: 2.0 + row + block for row in range(sizes[block])}, block)
    for block, chunk in enumerate(chunks):
        for update, weight in updates_of(
            chunk, {row: 2.0 + row + block for row in range(sizes[block])}, means=True
        ):
            expected.add(update, weight, block)
    mean, other = aggregation.result(), expected.result()
    assert mean is not None
    assert other is not None
    for own, its in zip((*mean.tensors, *mean.buffers), (*other.tensors, *other.buffers), strict=True):
        assert own.dtype == its.dtype
        assert torch.equal(own, its)
    has_parts = bool(chunks[0].stack.buffers) and max(sizes) > 1
    assert bool(copied) == has_parts


def test_visits_of_a_chunk_that_has_lost_some_are_added_one_by_one() -> None:
    (chunk,) = chunks_of(nn.Linear(2, 2), [3])
    aggregation = AtController(None, ())
    aggregation.add_chunk(chunk, {1: 5.0}, 0)
    mean = aggregation.result()
    assert mean is not None
    assert all(torch.equal(own, its) for own, its in zip(mean.tensors, chunk.parameters_of(1), strict=True))
