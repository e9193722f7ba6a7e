"""A worker's parts of several loaders: which batches come together, epoch by epoch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, TensorDataset

from fedlightning.data import LoaderSettings, Shard
from fedlightning.data.combined_shard import CombinationMode, CombinedShard, count_combined

MODES: list[CombinationMode] = ["min_size", "max_size", "max_size_cycle"]


def shard(start: int, count: int, **settings: Any) -> Shard:
    return Shard(TensorDataset(torch.arange(start, start + count)), LoaderSettings(**settings))


def plain(batch: Any) -> Any:
    return None if batch is None else batch[0].tolist()


@pytest.mark.parametrize("mode", MODES)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3), batch_size=st.integers(1, 4))
def test_an_epoch_is_that_of_lightnings_combined_loader(
    mode: CombinationMode, sizes: list[int], batch_size: int
) -> None:
    parts = [shard(100 * number, size, batch_size=batch_size) for number, size in enumerate(sizes)]
    combined = CombinedShard(parts, mode, {"of": list(range(len(parts)))})
    loaders = [DataLoader(part.dataset, batch_size=batch_size) for part in parts]
    theirs = CombinedLoader({"of": loaders}, mode)
    expected = [[plain(one) for one in batch["of"]] for batch, *_ in theirs]
    assert combined.num_batches == len(expected)
    for epoch in range(2):
        found = combined.batches(epoch * len(expected), len(expected), seed=0, worker="bob")
        assert [[plain(one) for one in batch["of"]] for batch in found] == expected


@pytest.mark.parametrize("mode", MODES)
@given(first=st.integers(0, 12), count=st.integers(0, 6))
def test_any_slice_of_the_stream_can_be_read(mode: CombinationMode, first: int, count: int) -> None:
    parts = [shard(0, 7, batch_size=2, shuffle=True), shard(50, 3, batch_size=2, shuffle=True)]
    combined = CombinedShard(parts, mode, [0, 1])
    whole = [list(map(plain, batch)) for batch in combined.batches(0, 20, seed=1, worker="bob")]
    slice_ = [list(map(plain, batch)) for batch in combined.batches(first, count, seed=1, worker="bob")]
    assert slice_ == whole[first : first + count]


def test_cycles_are_shuffled_anew_and_parts_differently() -> None:
    parts = [shard(0, 8, batch_size=8, shuffle=True), shard(0, 16, batch_size=8, shuffle=True)]
    twins = CombinedShard([parts[0], parts[0]], "min_size", [0, 1])
    ((one, other),) = twins.batches(0, 1, seed=0, worker="bob")
    assert plain(one) != plain(other)
    cycled = CombinedShard(parts, "max_size_cycle", [0, 1])
    rows = [tuple(plain(one)) for one, _ in cycled.batches(0, 6, seed=0, worker="bob")]
    assert len(set(rows)) == 6


def test_what_is_known_of_it_is_that_of_its_parts() -> None:
    combined = CombinedShard([shard(0, 4), shard(3, 2)], "min_size", [0, 1])
    assert combined.num_samples == 6
    assert combined.label_counts() == {0: 1, 1: 1, 2: 1, 3: 2, 4: 1}
    assert [plain(batch) for batch in combined.in_order()] == [[0], [1], [2], [3]]


def test_a_part_without_batches_leaves_none() -> None:
    assert count_combined([0, 4], "max_size_cycle") == 0


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one of 'min_size', 'max_size', 'max_size_cycle'.*got 'seq"):
        CombinedShard([shard(0, 4)], "sequential", 0)
