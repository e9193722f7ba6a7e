"""What is sent of an update: its size, what comes back, what is lost, and that nothing is lost twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedlightning.algorithms.postprocessing import (
    Clip,
    GaussianNoise,
    Memo,
    Postprocessing,
    Postprocessor,
    PowerSGD,
    Quantize,
    RandomK,
    Sign,
    TopK,
)
from fedlightning.workers.payload import payload_bytes

SHAPES = st.lists(st.lists(st.integers(1, 7), max_size=3).map(tuple), min_size=1, max_size=4)
STEPS: list[Postprocessor] = [
    Clip(norm=0.5),
    GaussianNoise(std=0.1),
    TopK(fraction=0.3),
    RandomK(fraction=0.3),
    RandomK(fraction=0.3, unbiased=False),
    Quantize(bits=8),
    Quantize(bits=4, stochastic=True),
    Quantize(bits=2),
    Quantize(bits=1),
    Sign(),
    Sign(scaled=False),
    PowerSGD(rank=1),
]


def tensors(shapes: list[tuple[int, ...]], seed: int = 0) -> list[Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(shape) for shape in shapes]


@settings(max_examples=30, deadline=None)
@given(shapes=SHAPES, chosen=st.lists(st.sampled_from(STEPS), max_size=3), feedback=st.booleans())
def test_any_chain_gives_back_the_shapes_that_it_got(
    shapes: list[tuple[int, ...]], chosen: list[Postprocessor], feedback: bool
) -> None:
    update = tensors(shapes)
    # What comes out of a quantizer are codes, which no other step can process.
    while any(isinstance(step, Quantize | Sign) for step in chosen[:-1]):
        chosen.pop()
    chain, memo = Postprocessing(chosen, error_feedback=feedback), Memo()
    for _ in range(2):
        decoded = chain.decode(chain.encode(update, memo), shapes)
        assert [tuple(tensor.shape) for tensor in decoded] == shapes
        assert all(tensor.isfinite().all() for tensor in decoded)


@settings(max_examples=30, deadline=None)
@given(shapes=SHAPES, bits=st.sampled_from([1, 2, 4, 8]))
def test_rounding_is_off_by_half_a_level_at_most(shapes: list[tuple[int, ...]], bits: int) -> None:
    update = tensors(shapes)
    chain = Postprocessing([Quantize(bits=bits)])
    for before, after in zip(update, chain.decode(chain.encode(update, Memo()), shapes), strict=True):
        level = (before.max() - before.min()) / (2**bits - 1)
        assert (before - after).abs().max() <= level / 2 + 1e-6


@pytest.mark.parametrize("step", [Quantize(bits=2, stochastic=True), RandomK(fraction=0.25)], ids=repr)
def test_what_is_random_is_right_on_average(step: Postprocessor) -> None:
    """Within five standard errors of the mean over 2,000 draws."""
    update, chain = [torch.linspace(-1, 2, 12)], Postprocessing([step])
    torch.manual_seed(1)
    drawn = torch.stack([chain.decode(chain.encode(update, Memo()), [(12,)])[0] for _ in range(2000)])
    error = drawn.std(0) / len(drawn) ** 0.5
    assert ((drawn.mean(0) - update[0]).abs() <= 5 * error + 1e-6).all()


@pytest.mark.parametrize(
    ("step", "most"),
    [
        (TopK(fraction=0.01), 0.01 * 8),
        (RandomK(fraction=0.01), 0.01 * 4),
        (Quantize(bits=8), 1),
        (Quantize(bits=4), 0.5),
        (Quantize(bits=1), 1 / 8),
        (Sign(), 1 / 8),
        (PowerSGD(rank=1), 4 * 2 / 100),
    ],
    ids=repr,
)
def test_the_bytes_are_those_of_what_is_sent(step: Postprocessor, most: float) -> None:
    """Per entry of a matrix of 100 by 100, beside a few numbers for each tensor."""
    sent = Postprocessing([step]).encode(tensors([(100, 100)]), Memo())
    assert payload_bytes(sent) <= most * 10_000 + 32


def test_a_chain_compresses_what_the_step_before_has_left() -> None:
    update = [torch.tensor([0.0, 9.0, -1.0, 3.0])]
    sent = Postprocessing([TopK(fraction=0.5), Quantize(bits=8)]).encode(update, Memo())
    assert [tensor.dtype for tensor in sent["payload"]] == [torch.uint8]
    assert sent["payload"][0].numel() == 2


@settings(max_examples=20, deadline=None)
@given(
    step=st.sampled_from(
        [TopK(0.2), RandomK(0.2, unbiased=False), Sign(), Quantize(bits=1), PowerSGD(rank=1)]
    )
)
def test_with_error_feedback_what_arrives_is_what_was_sent_less_what_is_kept(step: Postprocessor) -> None:
    chain, memo = Postprocessing([step], error_feedback=True), Memo()
    shapes = [(6, 5), (3,)]
    sent, arrived = torch.zeros(33), torch.zeros(33)
    for visit in range(5):
        update = tensors(shapes, seed=visit)
        decoded = chain.decode(chain.encode(update, memo), shapes)
        sent += torch.cat([tensor.flatten() for tensor in update])
        arrived += torch.cat([tensor.flatten() for tensor in decoded])
        lost = torch.cat([tensor.flatten() for tensor in memo.kept("lost") or []])
        torch.testing.assert_close(arrived + lost, sent)


def test_power_iteration_finds_a_matrix_of_its_rank() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(30, 2) @ torch.randn(2, 20)
    chain = Postprocessing([PowerSGD(rank=2)])
    torch.testing.assert_close(chain.decode(chain.encode([matrix], Memo()), [(30, 20)])[0], matrix)


def test_power_iteration_begins_anew_after_nothing_was_learned() -> None:
    chain, memo = Postprocessing([PowerSGD(rank=1)]), Memo()
    chain.encode([torch.zeros(30, 20)], memo)
    matrix = torch.outer(torch.arange(30.0), torch.arange(20.0))
    torch.testing.assert_close(chain.decode(chain.encode([matrix], memo), [(30, 20)])[0], matrix)


def test_equal_entries_are_quantized_as_they_are() -> None:
    chain = Postprocessing([Quantize(bits=1)])
    assert torch.equal(
        chain.decode(chain.encode([torch.full((5,), 3.0)], Memo()), [(5,)])[0], torch.full((5,), 3.0)
    )


NONSENSE: list[tuple[Callable[[], Any], str]] = [
    (lambda: TopK(fraction=0), "fraction must be above 0"),
    (lambda: RandomK(fraction=1.5), "fraction must be above 0 and at most 1"),
    (lambda: Quantize(bits=3), "bits must be one of"),
    (lambda: PowerSGD(rank=0), "rank must be a whole number of at least 1"),
    (lambda: Clip(norm=0), "norm must be above 0"),
    (lambda: GaussianNoise(std=-1), "std must be at least 0"),
    (lambda: Postprocessing([3]), "steps must be postprocessors"),  # type: ignore[list-item]  # what is tested
]


@pytest.mark.parametrize(("make", "message"), NONSENSE)
def test_nonsense_is_refused_at_once(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()
