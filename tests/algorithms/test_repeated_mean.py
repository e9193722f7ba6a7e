"""Means in memory that stays have the bits of those that are made anew."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fedlightning.algorithms import Update, UpdateMean
from fedlightning.algorithms.averaging import ParameterMean
from fedlightning.algorithms.repeated_mean import RepeatedMean

INF = torch.inf


def ordinary(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator) for size in ((3, 5), (), (17,), (0,))]


MIXED = [torch.tensor([1.0, 2.0]), torch.tensor([3, 4])]
KINDS: dict[str, list[list[Tensor]]] = {
    "ordinary": [ordinary(1), ordinary(2), ordinary(3)],
    "one": [ordinary(4)],
    "double": [[tensor.double() for tensor in ordinary(seed)] for seed in (5, 6)],
    "half": [[tensor.half() for tensor in ordinary(seed)] for seed in (7, 8)],
    "integers": [MIXED, [tensor + 1 for tensor in MIXED]],
    "infinite": [[torch.tensor([-INF, 1.0]), torch.ones(2)], [torch.tensor([-INF, 2.0]), torch.zeros(2)]],
    "large": [[torch.full((2,), 3e38)], [torch.full((2,), 2e38)]],
    "transposed": [[tensor.t() for tensor in ordinary(seed)[:1]] for seed in (9, 10)],
    "none": [[], []],
}


def added(mean: ParameterMean, updates: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    for weight, update in enumerate(updates, 1):
        mean.add(update, weight)
    return [tensor.clone() for tensor in mean.result()]


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_each_mean_has_the_bits_of_one_that_is_made_anew(first: str, second: str) -> None:
    mean = RepeatedMean()
    for kind in (first, second, second):
        mean.restart()
        ours, expected = added(mean, KINDS[kind]), added(ParameterMean(), KINDS[kind])
        assert len(ours) == len(expected)
        for one, other in zip(ours, expected, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


def test_memory_stays() -> None:
    mean = RepeatedMean()
    places = []
    for _ in range(2):
        mean.restart()
        mean.add(ordinary(1), 1)
        places.append([tensor.data_ptr() for tensor in mean.result()])
    assert places[0] == places[1]


def test_an_update_of_another_type_is_taken_into_the_mean() -> None:
    updates = [ordinary(1), ordinary(2), [tensor.double() for tensor in ordinary(3)]]
    mean = RepeatedMean()
    mean.restart()
    assert all(map(torch.equal, added(mean, updates), added(ParameterMean(), updates)))


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_a_weight_must_be_positive(weight: float) -> None:
    with pytest.raises(ValueError, match="weight must be positive"):
        RepeatedMean().add(ordinary(1), weight)


def test_updates_of_several_lengths_are_refused() -> None:
    mean = RepeatedMean()
    mean.add(ordinary(1), 1)
    with pytest.raises(ValueError, match="expected 4 tensors"):
        mean.add(ordinary(2)[:1], 1)


def test_blocks_do_not_touch_what_came_of_those_before() -> None:
    mean = UpdateMean()
    values = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    for position, value in enumerate(values):
        mean.add(Update([torch.tensor([value])], [True], []), 1, block=position // 2)
    result = mean.result()
    assert result is not None
    assert result.tensors[0].item() == sum(values) / len(values)
