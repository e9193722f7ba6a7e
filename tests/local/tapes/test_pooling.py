"""Pooling by way of another layout comes to the bits of torch's own pooling, in memory as it has it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fedlightning.local.tapes.overloads import call_into
from fedlightning.local.tapes.pooling import LEAST_CHANNELS, is_faster_by_channel, pooled_by_channel
from fedlightning.local.tapes.recorder import Recorder

POOL = torch.ops.aten.max_pool2d_with_indices.default
BITS = {torch.float64: torch.int64, torch.float32: torch.int32}
FEW = torch.tensor([-torch.inf, -1.0, -0.0, 0.0, 1.0, 1.5, torch.inf, torch.nan])
"""So few that most windows have ties, zeros of both signs among them, and what is not a number."""


def laid_out_anew(args: list[Any]) -> list[Tensor]:
    values, indices = map(torch.empty_like, POOL(*args))
    pooled_by_channel(args, values, indices)()
    return [values, indices]


@st.composite
def windows(draw: st.DrawFn) -> list[Any]:
    kernel = draw(st.tuples(*[st.integers(1, 3)] * 2))
    stride = draw(st.tuples(*[st.integers(1, 3)] * 2))
    padding = [draw(st.integers(0, side // 2)) for side in kernel]
    dilation = draw(st.tuples(*[st.integers(1, 2)] * 2))
    return [list(kernel), list(stride), padding, list(dilation), draw(st.booleans())]


@given(
    settings=windows(),
    dtype=st.sampled_from(list(BITS)),
    shape=st.tuples(st.integers(1, 3), st.integers(16, 35), st.integers(6, 9), st.integers(6, 9)),
    seed=st.integers(0, 1 << 16),
)
def test_values_and_places_are_those_of_torch_with_ties_and_nan(
    settings: list[Any], dtype: torch.dtype, shape: tuple[int, ...], seed: int
) -> None:
    chosen = torch.randint(len(FEW), shape, generator=torch.Generator().manual_seed(seed))
    args = [FEW[chosen].to(dtype), *settings]
    values, indices = POOL(*args)
    other_values, other_indices = laid_out_anew(args)
    assert torch.equal(other_values.view(BITS[dtype]), values.view(BITS[dtype]))
    assert torch.equal(other_indices, indices)


def test_a_played_step_pools_by_channel_and_differentiates_to_the_same_bits() -> None:
    weight = torch.randn(16, 3, 3, 3)

    def step(x: Tensor) -> list[Tensor]:
        own = weight.detach().requires_grad_()
        loss = F.max_pool2d(F.conv2d(x, own).relu(), 2).square().sum()
        return [loss.detach(), *torch.autograd.grad(loss, own)]

    with Recorder([torch.randn(4, 3, 18, 18)], [weight]) as recorder:
        outputs = step(recorder._inputs[0])
    tape = recorder.tape(outputs)
    assert tape is not None, recorder.why_not
    assert any("pooled_by_channel" in str(call) for call in tape._calls)
    for _ in range(2):
        other = torch.randn(4, 3, 18, 18)
        tape.inputs[0].copy_(other)
        tape.play()
        for played, expected in zip(tape.outputs, step(other), strict=True):
            assert torch.equal(played, expected)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (torch.zeros(8, LEAST_CHANNELS, 8, 8), True),
        (torch.zeros(8, LEAST_CHANNELS, 8, 8, dtype=torch.bfloat16), False),
        (torch.zeros(8, LEAST_CHANNELS, 8, 8).to(memory_format=torch.channels_last), False),
        (torch.zeros(8, 8, LEAST_CHANNELS, 8).transpose(1, 2), False),
        (torch.zeros(8 * LEAST_CHANNELS, 1, 8, 8), False),
        (torch.zeros(LEAST_CHANNELS, 32, 32), False),
        (torch.zeros(1, LEAST_CHANNELS, 8, 8), False),
    ],
    ids=["by_plane", "bfloat16", "by_channel", "neither", "one_channel", "no_batch", "few_numbers"],
)
def test_only_many_images_that_lie_plane_by_plane_are_laid_out_anew(images: Tensor, expected: bool) -> None:
    assert is_faster_by_channel(POOL, [images, [2, 2]]) is expected


def test_pooling_without_its_indices_is_left_as_it_is() -> None:
    images = torch.randn(8, LEAST_CHANNELS, 8, 8)
    values, _ = POOL(images, [2, 2], [2, 2])
    place = torch.empty_like(values)
    call_into(POOL, [images, [2, 2], [2, 2]], {}, [place, None])()
    assert torch.equal(place, values)
