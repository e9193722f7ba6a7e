"""A visit's random stream: its own, repeatable, and without a trace on the global ones."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from fedlightning.local.randomness import own_randomness


def draw() -> tuple[float, float, float]:
    return torch.rand(1).item(), float(np.random.rand()), random.random()


def test_the_stream_is_a_function_of_the_seed() -> None:
    with own_randomness(2**63 + 5):
        first = draw()
    with own_randomness(2**63 + 5):
        assert draw() == first
    with own_randomness(6):
        assert not set(draw()) & set(first)


def test_global_streams_are_untouched() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    expected = draw()
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    with own_randomness(1):
        draw()
    assert draw() == expected


def test_a_visit_draws_what_a_seeded_process_would() -> None:
    with own_randomness(7):
        drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), drawn)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="an accelerator in use takes its seed at once")
def test_visits_leave_nothing_queued_for_accelerators_that_are_not_there() -> None:
    before = len(torch.cuda._queued_calls)
    for seed in range(3):
        with own_randomness(seed):
            draw()
    assert len(torch.cuda._queued_calls) == before


def test_without_a_seed_the_global_streams_are_drawn_from() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    with own_randomness(None):
        assert torch.equal(torch.rand(1), expected)
