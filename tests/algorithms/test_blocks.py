"""Means that are taken block by block are the same wherever a block's mean is taken."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.algorithms import Update, UpdateMean
from fedlightning.algorithms.blocks import MOST_BLOCKS, block_of, block_size


@given(cohort=st.integers(1, 2000))
def test_blocks_are_few_and_in_order(cohort: int) -> None:
    size = block_size(cohort)
    numbers = [block_of(position, cohort) for position in range(cohort)]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) <= MOST_BLOCKS
    if size > 1:
        assert max(map(numbers.count, set(numbers))) == size


def updates(count: int, dtype: torch.dtype) -> list[Update]:
    generator = torch.Generator().manual_seed(count)
    return [
        Update(
            [torch.randn(3, generator=generator).to(dtype)],
            [True],
            [torch.tensor(n)],
            {"control": [torch.randn(2, generator=generator)]},
        )
        for n in range(count)
    ]


@given(count=st.integers(1, 100), missing=st.integers(0, 99), half=st.booleans())
def test_the_means_of_blocks_are_as_good_as_their_updates(count: int, missing: int, half: bool) -> None:
    whole, of_blocks = UpdateMean(), UpdateMean()
    parts: dict[int, tuple[UpdateMean, float]] = {}
    size = block_size(count)
    for position, update in enumerate(updates(count, torch.bfloat16 if half else torch.float32)):
        if position == missing:
            continue
        weight = 1 + position % 5
        whole.add(update, weight, block_of(position, count))
        part, total = parts.get(position // size, (UpdateMean(), 0.0))
        part.add(update, weight)
        parts[position // size] = part, total + weight
    for number, (part, total) in parts.items():
        mean = part.result()
        assert mean is not None
        of_blocks.add(mean, total, number if size > 1 else 0)
    one, other = whole.result(), of_blocks.result()
    if one is None or other is None:
        assert one is other
        return
    assert torch.equal(one.tensors[0], other.tensors[0])
    assert torch.equal(one.buffers[0], other.buffers[0])
    assert torch.equal(one.extras["control"][0], other.extras["control"][0])
