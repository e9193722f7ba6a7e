"""The fused kernel of torch, which is private: it is there, and does what torch's optimizers do with it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import SGD

from fedlightning.local.one_by_one import fused
from fedlightning.local.one_by_one.fused import Momentum, is_even, is_exact, step_at_once, step_by_operations


@pytest.mark.parametrize(
    "settings", [Momentum(0.9), Momentum(0.5, dampening=0.3, weight_decay=0.1), Momentum(0.9, nesterov=True)]
)
def test_the_kernel_steps_as_torch_s_optimizer_does_with_it(settings: Momentum) -> None:
    # Upstream has moved where this fails: see `step_at_once`.
    expected = nn.Parameter(torch.linspace(-1, 1, 64))
    optimizer = SGD([expected], lr=0.1, fused=True, **settings._asdict())
    tensor, buffer = expected.detach().clone(), torch.full((64,), torch.nan)
    for step in range(3):
        expected.grad = torch.full((64,), 1.0 + step)
        optimizer.step()
        step_at_once([tensor], [expected.grad], [buffer], settings, 0.1, first=step == 0)
    assert torch.equal(tensor, expected.detach())
    assert torch.equal(buffer, optimizer.state[expected]["momentum_buffer"])


def test_a_step_by_operations_counted_by_hand() -> None:
    tensor, buffer = torch.tensor([1.0]), torch.tensor([torch.nan])
    settings = Momentum(0.5, dampening=0.5, nesterov=True, weight_decay=1.0)
    step_by_operations([tensor], [torch.tensor([3.0])], [buffer], settings, 0.25, first=True)
    # 3 + 1 * 1 = 4 is the first momentum; the step is 4 + 0.5 * 4.
    assert (buffer.item(), tensor.item()) == (4.0, 1 - 0.25 * 6)
    step_by_operations([tensor], [torch.tensor([1.0])], [buffer], settings, 0.25, first=False)
    # 1 - 0.5 = 0.5; 0.5 * 4 + 0.5 * 0.5 = 2.25; the step is 0.5 + 0.5 * 2.25.
    assert (buffer.item(), tensor.item()) == (2.25, -0.5 - 0.25 * 1.625)


def test_several_threads_round_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert not is_exact(Momentum(0.9))


def test_a_kernel_that_rounds_otherwise_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def rounded(*args: object, **settings: object) -> None:
        step_at_once(*args, **settings)  # type: ignore[arg-type]  # they are passed on as they are
        args[0][0][3].mul_(1 + 1e-6)  # type: ignore[index]  # they are objects to the checker

    settings = Momentum(0.123)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(fused, "step_at_once", rounded)
    fused._is_exact.cache_clear()
    assert not is_exact(settings)
    fused._is_exact.cache_clear()


def test_a_trial_draws_no_random_numbers() -> None:
    fused._is_exact.cache_clear()
    before = torch.get_rng_state()
    fused._is_exact(Momentum(0.9))
    assert torch.equal(before, torch.get_rng_state())


def test_even_tensors_are_of_a_multiple_of_64_numbers() -> None:
    assert is_even(torch.zeros(2, 32))
    assert not is_even(torch.zeros(65))
