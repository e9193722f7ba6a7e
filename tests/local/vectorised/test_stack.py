"""Workers start from what the global module was when the round began, out of memory that stays."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import SGD

from fedlightning.local.vectorised.stack import Places, Stack


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.LazyLinear(2))


@pytest.mark.parametrize("workers", [1, 3])
def test_everybody_starts_from_what_was_kept_aside(workers: int) -> None:
    module = net()
    module(torch.randn(4, 2, 5, 5))
    stack = Stack(Places(module, SGD(module.parameters(), lr=0.1)), workers, by_channel=workers == 1)
    expected = [parameter.detach().clone() for parameter in module.parameters()]
    stack.take_start()
    with torch.no_grad():
        for tensor in (*module.parameters(), module[1].running_mean):
            tensor.add_(1)
    for tensor in stack.tensors:
        tensor.fill_(torch.nan if tensor.is_floating_point() else -1)
    for count in range(1, workers + 1):
        stack.begin(count)
        for worker in range(count):
            for own, before in zip(stack.parameters, expected, strict=True):
                assert torch.equal(own[worker], before)
            for own, buffer in zip(stack.buffers, module.buffers(), strict=True):
                assert torch.equal(own[worker], buffer)
        assert all(own[count:].isnan().all() for own in stack.parameters)


def test_what_is_kept_aside_lies_as_the_rows_do_and_where_it_was_in_the_round_before() -> None:
    module = nn.Conv2d(2, 3, 3)
    stack = Stack(Places(module, SGD(module.parameters(), lr=0.1)), 1, by_channel=True)
    places = []
    for _ in range(2):
        stack.take_start()
        assert [kept.stride() for kept in stack._start] == [own[0].stride() for own in stack.parameters]
        places.append([kept.data_ptr() for kept in stack._start])
    assert places[0] == places[1]
