"""A module's tensors are found as torch finds them, each once."""

from __future__ import annotations

import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from fedlightning.workers.contents import module_tensors
from fedlightning.workers.payload import payload_bytes


def test_the_tensors_of_a_module_are_those_that_torch_lists() -> None:
    shared = nn.Linear(3, 3, bias=False)
    module = nn.Sequential(shared, nn.BatchNorm1d(3), nn.Sequential(shared, nn.Linear(3, 3)))
    module[2][1].weight = shared.weight
    module.append(MulticlassAccuracy(3))
    module.register_module("nothing", None)
    expected = [*module.parameters(), *module.buffers()]
    assert sorted(map(id, module_tensors(module))) == sorted(map(id, expected))
    assert payload_bytes(module) == sum(t.numel() * t.element_size() for t in expected)


def test_a_module_that_holds_itself_comes_to_an_end() -> None:
    module = nn.Module()
    module.weight = nn.Parameter(torch.ones(2))
    module.child = nn.Module()
    module.child.parent = module
    assert len(module_tensors(module)) == 1
