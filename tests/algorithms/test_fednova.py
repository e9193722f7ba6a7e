"""How far SGD goes along gradients of one, beside torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import Parameter

from fedlightning.algorithms.fednova import Reach

SHARES = st.floats(0, 0.99)


def followed(settings: dict[str, Any], mu: float, steps: int) -> tuple[float, Reach]:
    """Return how far torch's SGD goes, and how far we say it does."""
    parameter = Parameter(torch.zeros((), dtype=torch.float64))
    optimizer = torch.optim.SGD([parameter], **settings)
    reach = Reach(optimizer.param_groups[0], mu)
    for _ in range(steps):
        parameter.grad = 1 + mu * parameter.detach()
        optimizer.step()
        reach.step()
    return -float(parameter), reach


@given(st.floats(0.01, 1), SHARES, SHARES, st.integers(1, 6))
def test_it_goes_as_far_as_torch_s_sgd(lr: float, momentum: float, dampening: float, steps: int) -> None:
    settings = {"lr": lr, "momentum": momentum, "dampening": dampening}
    gone, reach = followed(settings, 0.0, steps)
    assert reach.gone == pytest.approx(gone)


@given(st.floats(0.01, 1), st.floats(0.01, 0.99), st.integers(1, 6))
def test_it_goes_as_far_by_nesterov_s_momentum(lr: float, momentum: float, steps: int) -> None:
    gone, reach = followed({"lr": lr, "momentum": momentum, "nesterov": True}, 0.0, steps)
    assert reach.gone == pytest.approx(gone)


@given(st.floats(0.01, 0.5), st.floats(0, 1.9), st.integers(1, 6))
def test_it_goes_as_far_on_a_leash(lr: float, mu: float, steps: int) -> None:
    gone, reach = followed({"lr": lr}, mu, steps)
    assert reach.gone == pytest.approx(gone)


@given(st.floats(0.01, 1), SHARES, st.integers(1, 6))
def test_as_many_steps_are_as_far_to_the_bit(lr: float, momentum: float, steps: int) -> None:
    _, reach = followed({"lr": lr, "momentum": momentum}, 0.0, steps)
    assert reach.gone == reach.of(steps)
