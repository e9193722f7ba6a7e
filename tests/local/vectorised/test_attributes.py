"""What a step has changed of a module is named, and put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap
from torchmetrics.classification import MulticlassAccuracy

from fedlightning.local.vectorised.attributes import Attributes
from fedlightning.local.vectorised.refusal import NotBatchable


class Module(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.count, self.seen, self.notes = 0, [1, 2], {"a": 1}
        self.mask: Tensor | None = None
        self.masks = dict[int, Tensor]()
        self.net = nn.Sequential(nn.Linear(2, 2))
        self.accuracy = MulticlassAccuracy(3)


def leak(module: Module) -> None:
    vmap(lambda x: setattr(module, "kept", x) or x)(torch.ones(2))  # type: ignore[func-returns-value]


def make(module: Module) -> None:
    module.mask, module.net[0].extra = torch.ones(3), nn.ReLU()
    module.masks[3] = torch.ones(3)


CHANGES: dict[str, tuple[Callable[[Module], Any], str]] = {
    "another value": (lambda module: setattr(module, "count", 1), "self.count"),
    "a new attribute": (lambda module: setattr(module, "new", "a"), "self.new"),
    "a longer list": (lambda module: module.seen.append(3), "self.seen"),
    "another list": (lambda module: setattr(module, "seen", []), "self.seen"),
    "another entry": (lambda module: module.seen.__setitem__(0, 3), "self.seen"),
    "a longer dictionary": (lambda module: module.notes.update(b=1), "self.notes"),
    "another count": (lambda module: module.notes.update(a=2), "self.notes"),
    "a first count": (lambda module: setattr(module, "new", 1), "self.new"),
    "a new part": (lambda module: setattr(module.net, "new", nn.ReLU()), "self.net._modules"),
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
    assert (module.notes, len(module.net)) == ({"a": 1}, 1)
    module.net(torch.ones(2))
    assert not hasattr(module, "new")
    assert not hasattr(module, "kept")


def test_parameters_and_metrics_may_change() -> None:
    module = Module()
    before = Attributes.of(module)
    module.net[0].weight = nn.Parameter(torch.zeros(2, 2))
    module.accuracy.update(torch.tensor([1]), torch.tensor([1]))
    before.require_the_same(Attributes.of(module))


def test_what_is_made_once_may_be_made() -> None:
    module = Module()
    before = Attributes.of(module)
    make(module)
    made = Attributes.of(module)
    assert before.require_the_same(made, but_made=True)
    with pytest.raises(NotBatchable, match="training_step changes self"):
        before.require_the_same(made)
    assert not made.require_the_same(Attributes.of(module), but_made=True)
    module.mask = torch.ones(2)
    assert made.require_the_same(Attributes.of(module), but_made=True)
    before.put_back()
    assert (module.mask, module.masks, [*module.net[0].children()]) == (None, {}, [])


@pytest.mark.parametrize(
    "name",
    [
        *("another value", "a longer list", "another count", "a longer dictionary", "a first count"),
        "a tensor under vmap",
    ],
)
def test_counts_are_not_made(name: str) -> None:
    module, (change, told) = Module(), CHANGES[name]
    before = Attributes.of(module)
    change(module)
    with pytest.raises(NotBatchable, match=f"training_step changes {told}"):
        before.require_the_same(Attributes.of(module), but_made=True)


def test_what_holds_much_is_made_as_long_as_it_was_again() -> None:
    module = Module()
    module.seen, module.notes = [*range(2000)], {str(n): n for n in range(2000)}
    before = Attributes.of(module)
    module.seen.append(1)
    module.notes["new"] = 1
    before.put_back()
    assert (len(module.seen), len(module.notes), "new" in module.notes) == (2000, 2000, False)
