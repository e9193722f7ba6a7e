"""What a worker keeps of the optimizer between visits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import Precision
from torch.nn import Parameter

from fedlightning.local.memory import WorkerMemory


def visit(memory: WorkerMemory, optimizer: torch.optim.Optimizer, round: int = 0) -> float:
    """Take one step of momentum SGD with gradient 1 and return how far it went."""
    parameter = optimizer.param_groups[0]["params"][0]
    before = parameter.item()
    with memory.lent_to([optimizer], Precision(), round):
        parameter.grad = torch.ones(1)
        optimizer.step()
    return before - parameter.item()


def momentum() -> torch.optim.Optimizer:
    return torch.optim.SGD([Parameter(torch.zeros(1))], lr=1.0, momentum=1.0)


@pytest.mark.parametrize(
    ("policy", "first", "second"),
    # Momentum of 1 adds up all earlier gradients of 1; bob's and alice's visits alternate.
    [("reset", [1, 1], [1, 1]), ("keep", [1, 1], [2, 2]), ("travel", [1, 2], [3, 4])],
)
def test_the_state_a_visit_starts_with(policy: Any, first: list[float], second: list[float]) -> None:
    optimizer = momentum()
    bob, alice = WorkerMemory(policy), WorkerMemory(policy)
    assert [visit(bob, optimizer, 0), visit(alice, optimizer, 0)] == first
    assert [visit(bob, optimizer, 1), visit(alice, optimizer, 1)] == second


def test_a_failed_visit_leaves_a_clean_optimizer() -> None:
    optimizer = momentum()
    memory = WorkerMemory("reset")

    def break_off() -> None:
        with memory.lent_to([optimizer], Precision(), 0):
            optimizer.state[optimizer.param_groups[0]["params"][0]] = {"momentum_buffer": torch.ones(1)}
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        break_off()
    assert not optimizer.state


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="optimizer_state must be one of"):
        WorkerMemory("lose")  # type: ignore[arg-type]  # what is tested


def test_what_is_kept_survives_a_checkpoint() -> None:
    optimizer, memory = momentum(), WorkerMemory("keep")
    visit(memory, optimizer)
    copied = WorkerMemory("keep")
    copied.load_state_dict(memory.state_dict(1))
    assert visit(copied, optimizer, 1) == 2


def test_a_round_that_is_done_again_starts_from_what_was_kept_before_it() -> None:
    optimizer, memory = momentum(), WorkerMemory("keep")
    assert visit(memory, optimizer, 0) == 1
    assert visit(memory, optimizer, 1) == 2
    assert visit(memory, optimizer, 1) == 2
    assert memory.state_dict(1)["optimizers"][0][0]["momentum_buffer"] == 1
    assert memory.state_dict(2)["optimizers"][0][0]["momentum_buffer"] == 2
    assert visit(memory, optimizer, 2) == 3


def test_each_worker_has_a_loss_scale_of_its_own() -> None:
    class Scaling(Precision):
        scale = 8.0

        def state_dict(self) -> dict[str, Any]:
            return {"scale": self.scale}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.scale = state_dict["scale"]

    precision, bob, alice = Scaling(), WorkerMemory("reset"), WorkerMemory("reset")
    with bob.lent_to([momentum()], precision, 0):
        precision.scale = 4.0
    with alice.lent_to([momentum()], precision, 0):
        assert precision.scale == 8.0
    with bob.lent_to([momentum()], precision, 1):
        assert precision.scale == 4.0
