"""What a step has read in Python counts as known only where nothing can change unseen."""

from __future__ import annotations

import builtins
import gc
import io
import math
import operator
import sys
import time
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from fedlightning.local.tapes.readings import Readings
from fedlightning.local.tapes.watching import Watch
from tests.local.vectorised.toys import CLASSES, FEATURES, Net, attached

FACTOR = 1.0
TABLE = {"factor": 1.0}
LOOK = "{0.factor}"


def scaled(loss: Tensor, by: float = 1.0) -> Tensor:
    return loss * by * FACTOR


def of_closure(factor: float) -> Any:
    return lambda loss: loss * factor


remembered = of_closure(2.0)


class Plain(Net):
    factor = 1.0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.fixed = nn.Parameter(torch.ones(()), requires_grad=False)


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


class Bare(dict[str, float]):
    """Nothing in it, but it has an attribute."""

    factor = 1.0


class WithThings(Plain):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._hidden = 1.0
        self.shares = [1.0, 1.0]
        self.bare = Bare()
        self.tensor: Any = torch.ones(())
        self.tensor.factor = 1.0
        self.sparse = torch.ones(1).to_sparse()

    found = property(operator.attrgetter("_hidden"))


class OfAList(WithThings):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * len(self.shares)


class OfADictionary(WithThings):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * self.bare.factor


class OfAProperty(WithThings):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * self.found


class OfItsAttributes(WithThings):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * self.__dict__["_hidden"]


class OfAPattern(WithThings):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        match self:
            case nn.Module(_hidden=1.0):
                return super().training_step(batch, batch_idx)


class OfATensor(WithThings):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * self.tensor.factor


class OfASparseTensor(WithThings):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * self.sparse.to_dense()


class OfTheMachine(WithThings):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * (1 + torch.get_num_threads())


class OfZero(Plain):
    shift = 0.0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss: Tensor = super().training_step(batch, batch_idx)
        return torch.copysign(loss, torch.full((), self.shift)).detach() + loss


class OfBuiltins(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * divmod(3, 2)[0]


class OfAPart(Plain):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.body.log = 1.0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return (
            F.cross_entropy(self.head(batch[0].sum(1, keepdim=True).expand(-1, 8)), batch[1]) * self.body.log
        )


def read(module: Any) -> Readings:
    readings = Readings(module, [each for each in module.parameters() if each.requires_grad])
    readings.add(watched(module))
    return readings


def watched(module: Any) -> Watch:
    module.log = "".format  # takes anything, as what stands there during a step
    batch = [torch.randn(4, FEATURES, dtype=torch.float64), torch.zeros(4, dtype=torch.long)]
    with Watch() as watch:
        step(module, batch)
    return watch


def step(module: Any, batch: list[Tensor]) -> None:
    module.training_step(batch, 0)


def made(kind: Any) -> Any:
    return attached(kind(partial(SGD, lr=0.1)))


class OfATry(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        try:
            return super().training_step(batch, batch_idx)
        except ValueError:
            return None


class OfAFinally(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        try:
            return super().training_step(batch, batch_idx)
        finally:
            self.body.train()


class OfAListWithin(Plain):
    lists = ([1.0],)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * self.lists[0][0]


def counted(loss: Tensor, seen: Any = None) -> Tensor:
    return loss * len(seen)


counted.__defaults__ = ([torch.ones(())],)


class OfADefault(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return counted(super().training_step(batch, batch_idx))


class OfAHook(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        self.fixed.requires_grad_().register_hook(torch.neg)
        return super().training_step(batch, batch_idx)


class OfAFormat(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * float(LOOK.format(self))


class OfACount(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * self.fixed._version


class OfASeed(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        torch.manual_seed(0)
        return super().training_step(batch, batch_idx)


class OfAFile(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        torch.save(batch, io.BytesIO())
        return super().training_step(batch, batch_idx)


class OfThreads(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        torch.set_num_threads(1)
        return super().training_step(batch, batch_idx)


class OfApplied(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        batch[0].clone().apply_(abs)
        return super().training_step(batch, batch_idx)


UNKNOWN = [
    *(OfATry, OfAFinally, OfAListWithin, OfADefault, OfAHook, OfAFormat, OfACount, OfASeed, OfAFile),
    *(OfThreads, OfApplied),
    *(OfTheTrainer, OfATable, OfTheClock, OfAClosure, ByName, Imports, Elsewhere, OfAList, OfADictionary),
    *(OfAProperty, OfItsAttributes, OfAPattern, OfATensor, OfASparseTensor, OfTheMachine),
]


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_may_change_unseen_is_not_known(kind: Any) -> None:
    readings = read(made(kind))
    assert readings.why_not
    assert not readings.are_the_same()


def set_global(module: Any, patched: pytest.MonkeyPatch) -> None:
    patched.setitem(globals(), "FACTOR", 2.0)


def set_function(module: Any, patched: pytest.MonkeyPatch) -> None:
    patched.setitem(globals(), "scaled", F.relu)


class Special(nn.Linear):
    """A map of another kind."""


def set_method(module: Any, patched: pytest.MonkeyPatch) -> None:
    patched.setattr(Tensor, "argmax", Tensor.argmin)


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
    "default": (OfAFunction, lambda _, patched: patched.setattr(scaled, "__defaults__", (3.0,))),
    "code": (OfAFunction, lambda _, patched: patched.setattr(scaled, "__code__", set_function.__code__)),
    "class of a part": (OfItself, lambda module, _: setattr(module.head, "__class__", Special)),
    "call": (OfItself, lambda module, patched: patched.setattr(OfItself, "__call__", step)),
    "torch's function": (OfItself, lambda _, patched: patched.setattr(F, "cross_entropy", F.nll_loss)),
    "torch's method": (OfItself, set_method),
    "attribute of a weight": (OfItself, lambda module, _: setattr(module.fixed, "factor", 2.0)),
    "forward": (OfItself, lambda module, _: setattr(module.head, "forward", F.relu)),
    "hook": (OfItself, lambda module, _: module.head.register_forward_hook(print)),
    "sign of zero": (OfZero, lambda module, _: setattr(module, "shift", -0.0)),
    "of a part, named log": (OfAPart, lambda module, _: setattr(module.body, "log", 2.0)),
    "of math": (OfItself, lambda _, patched: patched.setattr(math, "sqrt", math.exp)),
    "builtin": (OfBuiltins, lambda _, patched: patched.setattr(builtins, "divmod", math.exp)),
    "trained": (OfItself, lambda module, _: module.fixed.requires_grad_()),
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


def test_a_change_between_two_steps_is_seen() -> None:
    module = made(OfItself)
    readings = read(module)
    module.factor = 2.0
    readings.add(watched(module))
    assert readings.why_not == "what was read before has changed"


def test_a_watch_that_somebody_takes_over_knows_nothing() -> None:
    with Watch() as watch:
        sys.setprofile(None)
    assert watch.why_not


def test_what_others_have_left_is_not_cleared_away_within_a_watch() -> None:
    assert gc.isenabled()
    with Watch():
        assert not gc.isenabled()
    assert gc.isenabled()
