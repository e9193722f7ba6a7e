"""A proof tells numbers apart that print alike, and none that a processor may tell apart as it likes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fedlightning.local.tapes.proof import same_bits

NAN, INF = float("nan"), float("inf")
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([1.0, -INF, 0.0], [1.0, -INF, 0.0], True),
        ([1.0, NAN], [1.0, -NAN], True),
        ([0.0], [-0.0], False),
        ([NAN], [1.0], False),
        ([INF], [-INF], False),
        ([1.0], [1.0078125], False),
    ],
)
def test_floats(dtype: torch.dtype, one: list[float], other: list[float], same: bool) -> None:
    assert same_bits(torch.tensor(one, dtype=dtype), torch.tensor(other, dtype=dtype)) is same


@pytest.mark.parametrize(
    "numbers",
    [torch.arange(6), torch.tensor([True]), torch.tensor([1j]), torch.ones(()), torch.ones(2, 3).t()],
)
def test_numbers_of_all_kinds_in_any_layout(numbers: Tensor) -> None:
    assert same_bits(numbers, numbers.clone().contiguous())
    assert not same_bits(numbers, ~numbers if numbers.dtype == torch.bool else numbers + 1)
