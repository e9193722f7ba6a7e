"""What a step has read in Python counts as known only where nothing can change unseen."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from fedlightning.local.vectorised.readings import Readings
from fedlightning.local.vectorised.watching import Watch
from tests.local.vectorised.toys import CLASSES, FEATURES, Net, attached

FACTOR = 1.0
TABLE = {"factor": 1.0}


def scaled(loss: Tensor, by: float = 1.0) -> Tensor:
    return loss * by * FACTOR


def of_closure(factor: float) -> Any:
    return lambda loss: loss * factor


remembered = of_closure(2.0)


class Plain(Net):
    factor = 1.0


class OfItself(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss: Tensor = super().training_step(batch, batch_idx)
        return loss * self.factor * math.sqrt(2) + torch.zeros(())


class OfAFunction(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return scaled(super().training_step(batch, batch_idx), by=2.0)


class OfTheTrainer(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * (1 + self.current_epoch)


class OfATable(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * TABLE["factor"]


class OfTheClock(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * time.time()


class OfAClosure(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return remembered(super().training_step(batch, batch_idx))


class ByName(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * getattr(self, "fac" + "tor")


class Imports(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        from random import random

        return super().training_step(batch, batch_idx) * random()


class Elsewhere(Plain):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.others = (nn.Linear(FEATURES, CLASSES).double(),)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) + self.others[0](batch[0]).sum()


def read(module: Any) -> Readings:
    module.log = "".format  # takes anything, as what stands there during a step
    batch = [torch.randn(4, FEATURES, dtype=torch.float64), torch.zeros(4, dtype=torch.long)]
    readings = Readings(module, list(module.parameters()))
    with Watch() as watch:
        step(module, batch)
    readings.add(watch)
    return readings


def step(module: Any, batch: list[Tensor]) -> None:
    module.training_step(batch, 0)


def made(kind: Any) -> Any:
    return attached(kind(partial(SGD, lr=0.1)))


@pytest.mark.parametrize("kind", [OfTheTrainer, OfATable, OfTheClock, OfAClosure, ByName, Imports, Elsewhere])
def test_what_may_change_unseen_is_not_known(kind: Any) -> None:
    readings = read(made(kind))
    assert readings.why_not
    assert not readings.are_the_same()


def set_global(module: Any, patched: pytest.MonkeyPatch) -> None:
    patched.setitem(globals(), "FACTOR", 2.0)


def set_function(module: Any, patched: pytest.MonkeyPatch) -> None:
    patched.setitem(globals(), "scaled", F.relu)


CHANGES: dict[str, tuple[Any, Any]] = {
    "attribute": (OfItself, lambda module, _: setattr(module, "factor", 2.0)),
    "of the class": (OfItself, lambda module, patched: patched.setattr(Plain, "factor", 2)),
    "of a class between": (OfItself, lambda module, patched: patched.setattr(OfItself, "factor", 1.0)),
    "global": (OfAFunction, set_global),
    "function": (OfAFunction, set_function),
    "another step": (OfItself, lambda module, patched: patched.setattr(OfItself, "training_step", step)),
    "part": (OfItself, lambda module, _: setattr(module, "head", nn.Linear(8, CLASSES).double())),
    "mode": (OfItself, lambda module, _: module.body.eval()),
    "of a part": (OfItself, lambda module, _: setattr(module.body[0], "in_features", 3)),
    "forward": (OfItself, lambda module, _: setattr(module.head, "forward", F.relu)),
    "hook": (OfItself, lambda module, _: module.head.register_forward_hook(print)),
    "type": (OfItself, lambda module, _: torch.set_default_dtype(torch.float64)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, change = CHANGES[name]
    module = made(kind)
    readings = read(module)
    assert not readings.why_not
    assert readings.are_the_same()
    try:
        change(module, monkeypatch)
        assert not readings.are_the_same()
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_is_trained_may_change() -> None:
    module = made(OfItself)
    readings = read(module)
    assert not readings.why_not
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    module.unread = "something"
    del module.unread
    assert readings.are_the_same()
