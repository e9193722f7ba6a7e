"""Means by hand, against NumPy, and the one promise that a sum of weighted terms would break."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.algorithms import BufferMean, ParameterMean

WEIGHTS = st.lists(st.integers(1, 10_000), min_size=1, max_size=8)


def mean_of(kind: type, updates: list[list[torch.Tensor]], weights: list[float]) -> list[torch.Tensor]:
    mean = kind()
    for tensors, weight in zip(updates, weights, strict=True):
        mean.add(tensors, weight)
    return mean.result()


def test_parameters_by_hand() -> None:
    (result,) = mean_of(ParameterMean, [[torch.tensor([1.0, 0.0])], [torch.tensor([4.0, 8.0])]], [1, 3])
    assert result.tolist() == [3.25, 6.0]


@given(WEIGHTS, st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float64]))
def test_parameters_equal_numpys_weighted_average(weights: list[int], seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    updates = [[torch.randn(3, 2, generator=generator, dtype=dtype)] for _ in weights]
    (result,) = mean_of(ParameterMean, updates, weights)
    expected = np.average(np.stack([u[0].double().numpy() for u in updates]), axis=0, weights=weights)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    np.testing.assert_allclose(result.double().numpy(), expected, rtol=tolerance, atol=tolerance)


@given(WEIGHTS, st.integers(0, 2**31))
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]
)
def test_identical_parameters_give_the_copy(dtype: torch.dtype, weights: list[int], seed: int) -> None:
    tensor = torch.randn(17, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    (result,) = mean_of(ParameterMean, [[tensor] for _ in weights], weights)
    assert result.dtype == dtype
    assert torch.equal(result, tensor)


def test_integers_alone_are_averaged_as_buffers_are() -> None:
    (result,) = mean_of(ParameterMean, [[torch.tensor([1, 4])], [torch.tensor([2, 4])]], [1, 3])
    assert result.tolist() == [2, 4]


@given(WEIGHTS)
@pytest.mark.parametrize("kind", [ParameterMean, BufferMean])
def test_identical_tensors_of_any_kind_give_the_copy(kind: type, weights: list[int]) -> None:
    buffers = [
        torch.tensor([0.1, 0.2]),
        torch.empty(0),
        torch.tensor([0.1, float("inf"), -float("inf")]),
        torch.tensor(2**60 + 1),
        torch.tensor([True, False]),
        torch.tensor([3, 250], dtype=torch.uint8),
    ]
    result = mean_of(kind, [buffers for _ in weights], weights)
    for mean, buffer in zip(result, buffers, strict=True):
        assert mean.dtype == buffer.dtype
        assert torch.equal(mean, buffer)


def test_buffers_by_hand() -> None:
    first = [
        torch.tensor(1.0),
        torch.tensor(10),
        torch.tensor([True, True]),
        torch.tensor(200, dtype=torch.uint8),
    ]
    second = [
        torch.tensor(3.0),
        torch.tensor(13),
        torch.tensor([False, True]),
        torch.tensor(100, dtype=torch.uint8),
    ]
    mean, count, mask, byte = mean_of(BufferMean, [first, second], [1, 1])
    assert mean.item() == 2.0
    assert count.item() == 12  # 10 and a distance of 1.5, rounded half to even
    assert mask.tolist() == [False, True]  # a tie is False
    assert byte.item() == 150


def test_what_was_added_is_not_kept() -> None:
    tensor = torch.ones(2)
    mean = ParameterMean()
    mean.add([tensor], 1)
    tensor.zero_()
    assert mean.result()[0].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("weight", [0, -1, float("nan")])
@pytest.mark.parametrize("kind", [ParameterMean, BufferMean])
def test_weight_must_be_positive(kind: type, weight: float) -> None:
    with pytest.raises(ValueError, match="weight must be positive"):
        kind().add([torch.ones(1)], weight)


def test_updates_must_agree() -> None:
    mean = ParameterMean()
    mean.add([torch.ones(1)], 1)
    with pytest.raises(ValueError, match="expected 1 tensors"):
        mean.add([torch.ones(1), torch.ones(1)], 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int64])
def test_a_mean_in_room_that_is_given_has_the_same_bits(dtype: torch.dtype) -> None:
    updates = [[(torch.randn(3, 2) * 50).to(dtype), torch.tensor([0.1, float("inf")])] for _ in range(4)]
    room = [torch.empty(3, 2, dtype=dtype), torch.empty(2)]
    mean = ParameterMean(room)
    for weight, update in enumerate(updates, 1):
        mean.add(update, weight)
    expected = mean_of(ParameterMean, updates, [1, 2, 3, 4])
    assert all(map(torch.equal, mean.result(), expected))
    if dtype == torch.float32:
        assert mean.result()[0] is room[0]
