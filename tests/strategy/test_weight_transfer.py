"""Incremental and cyclic weight transfer (Chang et al. 2018): worker after worker, once or often.

Held against a loop in plain torch, on the quadratic toy, whose steps have no chance in them.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fedlightning.algorithms import ChosenBy, FixedOrder, RoundRobin, Sampling
from fedlightning.local.memory import OptimizerState
from tests.strategy.quadratic import Quadratic, fit_quadratic

SAMPLES = {"ann": (1.0, (4.0, 0.0)), "bob": (2.0, (0.0, 2.0))}
ORDERS: list[tuple[Sampling | None, str]] = [
    (None, "ann bob"),
    (RoundRobin(), "ann bob"),
    (FixedOrder(["bob", "ann"]), "bob ann"),
    (ChosenBy(lambda draw: ["bob", "ann"] if draw.round % 2 else ["ann", "bob"]), "ann bob bob ann"),
]


class WithMomentum(Quadratic):
    """Step by SGD with momentum, which optimizers keep."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.25, momentum=0.5)


def by_loop(visits: list[str], state: OptimizerState) -> torch.Tensor:
    """Return where two steps at each worker lead."""
    w = torch.zeros(2, dtype=torch.float64)
    momenta = {name: torch.zeros_like(w) for name in SAMPLES}
    travelling = torch.zeros_like(w)
    for name in visits:
        curvature, target = SAMPLES[name]
        momentum = {"reset": torch.zeros_like(w), "keep": momenta[name], "travel": travelling}[state]
        for _ in range(2):
            gradient = curvature * (w - torch.tensor(target, dtype=torch.float64))
            momentum = 0.5 * momentum + gradient
            w = w - 0.25 * momentum
        momenta[name] = travelling = momentum
    return w


def _name(value: object) -> str:
    return value if isinstance(value, str) else type(value).__name__


@pytest.mark.parametrize("state", ["reset", "keep", "travel"])
@pytest.mark.parametrize("cycles", [1, 3])
@pytest.mark.parametrize(("sampling", "order"), ORDERS, ids=_name)
def test_weights_go_round(sampling: Sampling | None, order: str, cycles: int, state: OptimizerState) -> None:
    names = order.split()
    visits = [names[number % len(names)] for number in range(2 * cycles)]
    module, strategy = fit_quadratic(
        rounds=cycles,
        module=WithMomentum(),
        update="sequential",
        optimizer_state=state,
        sampling=sampling,
    )
    assert [record.workers for record in strategy.history] == [(name,) for name in visits]
    torch.testing.assert_close(module.w.detach(), by_loop(visits, state))


def test_what_becomes_of_the_optimizer_matters() -> None:
    ends = [by_loop(["ann", "bob"] * 3, state) for state in ("reset", "keep", "travel")]
    assert not torch.allclose(ends[0], ends[1])
    assert not torch.allclose(ends[1], ends[2])
