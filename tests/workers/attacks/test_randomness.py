"""How many random numbers were drawn tells of the values they were drawn for; the next number must not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fedlightning.workers import KeepData, VirtualWorker
from fedlightning.workers.drawing import DRAWS_BY_VALUE

SAMPLERS: dict[str, Callable[[Tensor], Tensor]] = {
    "binomial": lambda p: torch.binomial((p * 100).round(), torch.full_like(p, 0.5)),
    "poisson": lambda p: torch.poisson(p * 100),
    "rrelu_with_noise": lambda p: torch.rrelu(p - 0.5, training=True),
    "rrelu_with_noise_": lambda p: torch.rrelu_(p - 0.5, training=True),
}


def next_number(data: Tensor, sample: Callable[[Tensor], Tensor], *, private: bool) -> Tensor:
    bob = VirtualWorker(id="bob", policy=KeepData())
    pointer = bob.register(data) if private else bob.send(data)
    torch.manual_seed(0)
    sample(pointer)
    return torch.rand(1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_next_number_is_the_same_for_all_private_values(name: str) -> None:
    low, high = torch.full((64,), 0.1), torch.full((64,), 0.9)
    sample = SAMPLERS[name]
    assert next_number(low, sample, private=False) != next_number(high, sample, private=False)
    assert next_number(low, sample, private=True) == next_number(high, sample, private=True)


def test_two_draws_in_a_row_differ() -> None:
    secret = VirtualWorker(id="bob").register(torch.full((64,), 5.0))
    assert not torch.equal(torch.poisson(secret).get(), torch.poisson(secret).get())


def test_the_kernels_are_torchs_own() -> None:
    assert all(hasattr(torch.ops.aten, name) for name in DRAWS_BY_VALUE)


def test_dropout_on_private_data_draws_the_bits_of_local_training() -> None:
    data = torch.ones(64)
    mask = next_number(data, torch.nn.functional.dropout, private=True)
    torch.manual_seed(0)
    torch.nn.functional.dropout(data)
    assert mask == torch.rand(1)
