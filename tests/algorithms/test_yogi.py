"""Yogi beside the paper's update, written in plain numbers."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import Parameter

from fedlightning.algorithms import Yogi

GRADIENTS = st.lists(st.floats(-10, 10), min_size=1, max_size=6)


def paper(x: float, deltas: list[float], eta: float, beta1: float, beta2: float, tau: float) -> float:
    """Follow Algorithm 2 of Reddi et al., with the pseudo-gradient ``-delta``."""
    m, v = 0.0, tau**2
    for delta in deltas:
        m = beta1 * m + (1 - beta1) * delta
        v = v - (1 - beta2) * delta**2 * (v > delta**2) + (1 - beta2) * delta**2 * (v < delta**2)
        x += eta * m / (math.sqrt(v) + tau)
    return x


@given(GRADIENTS)
def test_the_update_is_the_paper_s(gradients: list[float]) -> None:
    parameter = Parameter(torch.tensor([0.5], dtype=torch.float64))
    yogi = Yogi([parameter], lr=0.1, betas=(0.8, 0.95), tau=0.01)
    for gradient in gradients:
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        yogi.step()
    expected = paper(0.5, [-gradient for gradient in gradients], 0.1, 0.8, 0.95, 0.01)
    assert parameter.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_two_steps_by_hand() -> None:
    """``v``: 0 -> 1/2 * 16 = 8 -> 8 - 1/2 * 4 = 6; ``m``: 2, then 2."""
    parameter = Parameter(torch.tensor([0.0], dtype=torch.float64))
    yogi = Yogi([parameter], lr=1, betas=(0.5, 0.5), tau=1, initial=0)
    for gradient in (4.0, 2.0):
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        yogi.step()
    assert parameter.item() == pytest.approx(-2 / (math.sqrt(8) + 1) - 2 / (math.sqrt(6) + 1))


@given(GRADIENTS)
def test_torch_s_adagrad_is_the_paper_s(gradients: list[float]) -> None:
    """With ``eps=tau`` and ``initial_accumulator_value=tau**2``, as the documentation has it."""
    parameter = Parameter(torch.tensor([0.5], dtype=torch.float64))
    adagrad = torch.optim.Adagrad([parameter], lr=0.1, eps=0.01, initial_accumulator_value=0.01**2)
    x, v = 0.5, 0.01**2
    for gradient in gradients:
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        adagrad.step()
        v += gradient**2
        x -= 0.1 * gradient / (math.sqrt(v) + 0.01)
    assert parameter.item() == pytest.approx(x, rel=1e-9, abs=1e-12)


def test_what_has_no_gradient_stays() -> None:
    moved, left = Parameter(torch.ones(2)), Parameter(torch.ones(2))
    moved.grad = torch.ones(2)
    Yogi([moved, left]).step()
    assert torch.equal(left, torch.ones(2))
    assert not torch.equal(moved, torch.ones(2))


def test_the_state_is_restored() -> None:
    first, second = (Parameter(torch.tensor([1.0, 2.0])) for _ in range(2))
    one, other = Yogi([first]), Yogi([second])
    for parameter in (first, second):
        parameter.grad = torch.tensor([0.3, -0.2])
    one.step()
    with torch.no_grad():
        second.copy_(first)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    one.step()
    other.step()
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr must be at least 0"),
        ({"betas": (0.9, 1.0)}, r"less than 1, got \(0.9, 1.0\)"),
        ({"betas": (0.9,)}, "betas must be two numbers"),
        ({"tau": 0.0}, "tau must be more than 0"),
        ({"initial": -1.0}, "initial must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Yogi([Parameter(torch.ones(1))], **settings)
