"""What a step has changed of a module is named, and put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.func import vmap
from torchmetrics.classification import MulticlassAccuracy

from fedlightning.local.vectorised.attributes import Attributes
from fedlightning.local.vectorised.refusal import NotBatchable


class Module(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.count, self.seen, self.notes = 0, [1, 2], {"a": 1}
        self.net = nn.Sequential(nn.Linear(2, 2))
        self.accuracy = MulticlassAccuracy(3)


def leak(module: Module) -> None:
    vmap(lambda x: setattr(module, "kept", x) or x)(torch.ones(2))  # type: ignore[func-returns-value]


CHANGES: dict[str, tuple[Callable[[Module], Any], str]] = {
    "another value": (lambda module: setattr(module, "count", 1), "self.count"),
    "a new attribute": (lambda module: setattr(module, "new", 1), "self.new"),
    "a longer list": (lambda module: module.seen.append(3), "self.seen"),
    "a part": (lambda module: setattr(module.net[0], "in_features", 3), "self.net.0.in_features"),
    "a tensor under vmap": (leak, "self.kept"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_named_and_put_back(name: str) -> None:
    change, told = CHANGES[name]
    module = Module()
    before = Attributes.of(module)
    change(module)
    with pytest.raises(NotBatchable, match=f"training_step changes {told}"):
        before.require_the_same(Attributes.of(module))
    before.put_back()
    before.require_the_same(Attributes.of(module))
    assert (module.count, module.seen, module.net[0].in_features) == (0, [1, 2], 2)
    assert not hasattr(module, "new")
    assert not hasattr(module, "kept")


def test_parameters_and_metrics_may_change() -> None:
    module = Module()
    before = Attributes.of(module)
    module.net[0].weight = nn.Parameter(torch.zeros(2, 2))
    module.accuracy.update(torch.tensor([1]), torch.tensor([1]))
    before.require_the_same(Attributes.of(module))
