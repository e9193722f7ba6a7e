"""What a worker keeps of the optimizer between visits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

from fedlightning.local.memory import WorkerMemory


def visit(memory: WorkerMemory, optimizer: torch.optim.Optimizer) -> float:
    """Take one step of momentum SGD with gradient 1 and return how far it went."""
    parameter = optimizer.param_groups[0]["params"][0]
    before = parameter.item()
    with memory.optimizer_state_in(optimizer):
        parameter.grad = torch.ones(1)
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.5
    return before - parameter.item()


def momentum() -> torch.optim.Optimizer:
    return torch.optim.SGD([Parameter(torch.zeros(1))], lr=1.0, momentum=1.0)


@pytest.mark.parametrize(
    ("policy", "first", "second"),
    # Every step doubles what momentum adds; bob's and alice's visits alternate.
    [("reset", [1, 1], [1, 1]), ("keep", [1, 1], [2, 2]), ("travel", [1, 1], [0.75, 0.5])],
)
def test_the_state_a_visit_starts_with(policy: Any, first: list[float], second: list[float]) -> None:
    optimizer = momentum()
    bob, alice = WorkerMemory(policy), WorkerMemory(policy)
    assert [visit(bob, optimizer), visit(alice, optimizer)] == first
    assert [visit(bob, optimizer), visit(alice, optimizer)] == second


def test_a_failed_visit_leaves_a_clean_optimizer() -> None:
    optimizer = momentum()
    memory = WorkerMemory("reset")

    def break_off() -> None:
        with memory.optimizer_state_in(optimizer):
            optimizer.param_groups[0]["lr"] = 7.0
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        break_off()
    assert optimizer.param_groups[0]["lr"] == 1.0
    assert not optimizer.state


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="optimizer_state must be one of"):
        WorkerMemory("lose")  # type: ignore[arg-type]
