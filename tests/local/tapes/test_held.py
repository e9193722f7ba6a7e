"""Whatever a step leaves on a module beside numbers is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fedlightning.local.tapes.held import HeldBefore, held_by


def made() -> Any:
    module: Any = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    module.count, module.seen, module.things = 0, [], {"within": ([],)}
    module.things["itself"] = module.things
    return module


CHANGES: dict[str, Callable[[Any], object]] = {
    "attribute": lambda module: setattr(module, "count", 1),
    "new": lambda module: setattr(module, "other", 1),
    "list": lambda module: module.seen.append(1),
    "within": lambda module: module.things["within"][0].append(1),
    "mode of a part": lambda module: module[1].eval(),
    "part": lambda module: module.append(nn.Identity()),
    "trained": lambda module: module[0].weight.requires_grad_(False),
    "buffer": lambda module: setattr(module[1], "running_mean", torch.zeros(2)),
    "hook": lambda module: module[0].register_forward_hook(print),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen(name: str) -> None:
    module = made()
    before = held_by(module)
    assert held_by(module) == before
    CHANGES[name](module)
    assert held_by(module) != before


def test_numbers_may_change() -> None:
    module = made()
    before = held_by(module)
    module(torch.randn(4, 2)).sum().backward()
    assert held_by(module) == before


@pytest.mark.parametrize("name", [name for name in CHANGES if name not in ("list", "within")])
def test_a_change_is_undone(name: str) -> None:
    module = made()
    before, held = held_by(module), HeldBefore(module)
    CHANGES[name](module)
    held.put_back()
    assert held_by(module) == before
