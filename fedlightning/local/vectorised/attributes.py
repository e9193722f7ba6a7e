"""What a module keeps beside tensors and torchmetrics: a step together changes it once for everybody."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sized
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightning.pytorch as pl
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric, MetricCollection

from fedlightning.local.vectorised.functorch_calls import is_shown_by_vmap
from fedlightning.local.vectorised.refusal import NotBatchable

_NOT_LOOKED_AT = ("_parameters", "_buffers", "_trainer", "log")

_MOST_ENTRIES = 1000
"""How large a list may be to be looked through; of others the length tells."""

_SCALARS = frozenset({bool, int, float, str, type(None)})

_ABSENT = object()


class _Held(NamedTuple):
    """An attribute at some time.

    Args:
        value: The attribute.
        entries: What it holds, where that is a list, a set or a dictionary; else its length, if it has one.
    """

    value: Any
    entries: dict[Any, Any] | list[Any] | int

    @classmethod
    def of(cls, value: Any) -> _Held:
        """Look at an attribute.

        Args:
            value: The attribute.
        """
        if type(value) in _SCALARS or not isinstance(value, Sized):
            return cls(value, 0)
        if isinstance(value, dict) and not value:
            return cls(value, 0)  # as most of them, those of torch's hooks
        if isinstance(value, Tensor | str | nn.Module):
            return cls(value, 0)
        if 0 < len(value) <= _MOST_ENTRIES:
            if isinstance(value, dict):
                return cls(value, dict(value.items()))
            if isinstance(value, list | set | deque):
                return cls(value, [*value])
        return cls(value, len(value))

    def is_same(self, later: _Held) -> bool:
        """Tell whether it is what it was, and holds what it held.

        Args:
            later: What it is later on.
        """
        if self.value is not later.value:
            return False
        ours, theirs = self.entries, later.entries
        if isinstance(ours, int) or isinstance(theirs, int):
            return ours == theirs
        if isinstance(ours, dict) and isinstance(theirs, dict):
            return ours.keys() == theirs.keys() and all(_is_same(ours[key], theirs[key]) for key in ours)
        return len(ours) == len(theirs) and all(map(_is_same, ours, theirs))

    def is_made(self, later: _Held) -> bool:
        """Tell whether something was put where nothing was, for all to use, as caches are filled.

        Args:
            later: What it is later on.
        """
        ours, theirs = self.entries or {}, later.entries
        if self.value is not later.value:
            return _is_made(self.value, later.value)
        if not (isinstance(ours, dict) and isinstance(theirs, dict)):
            return False
        return ours.keys() <= theirs.keys() and all(
            _is_same(ours[key], value) if key in ours else _is_made(_ABSENT, value)
            for key, value in theirs.items()
        )

    def put_back(self) -> None:
        """Let it hold again what it held."""
        value, entries = self.value, self.entries
        if self.is_same(_Held.of(value)):
            return
        if isinstance(entries, int):
            # What was added last is taken out; a large set does not tell what that is.
            while isinstance(value, list | dict | deque) and len(value) > entries:
                value.popitem() if isinstance(value, dict) else value.pop()
            if isinstance(value, set) and not entries:
                value.clear()
            return
        value.clear()
        value.extend(entries) if isinstance(value, list | deque) else value.update(entries)


_Part = Mapping[str, _Held]
"""The attributes of a part of a module; a dictionary of its own parts is among them."""


@dataclass(frozen=True)
class Attributes:
    """The plain attributes of a module and its parts at some time.

    Args:
        own: Of each part, with its path.
    """

    own: Mapping[nn.Module, tuple[str, _Part]]

    @classmethod
    def of(cls, module: pl.LightningModule) -> Attributes:
        """Return those that a module has now.

        Args:
            module: The module.
        """
        return cls({part: (path, _own(part)) for path, part in _parts(module)})

    def require_the_same(self, later: Attributes, *, but_made: bool = False) -> bool:
        """Compare them with those after a step.

        Args:
            later: Those.
            but_made: Whether something may have been put where nothing was: a tensor that no worker's data
                have gone into, for one, is the same whoever makes it.

        Returns:
            Whether something was.

        Raises:
            NotBatchable: Some have changed.
        """
        made, absent = False, _Held(_ABSENT, 0)
        for part, (path, before) in self.own.items():
            _, after = later.own.get(part, ("", {}))
            for name, held in after.items():
                old = before.get(name, absent)
                if old.is_same(held) and not is_shown_by_vmap(held.value):
                    continue
                if not (but_made and old.is_made(held)):
                    raise NotBatchable(f"training_step changes self.{f'{path}.{name}'.strip('.')}")
                made = True
        return made

    def put_back(self) -> None:
        """Let the module have them again, and what they hold."""
        for part, (_, before) in self.own.items():
            there = vars(part)
            for name in _own(part).keys() - before.keys():
                del there[name]
            for name, held in before.items():
                there[name] = held.value
                held.put_back()


def _parts(module: pl.LightningModule) -> Iterator[tuple[str, nn.Module]]:
    # Metrics count in the one way and in the other.
    return (
        (path, part)
        for path, part in module.named_modules()
        if not isinstance(part, Metric | MetricCollection)
    )


def _own(part: nn.Module) -> dict[str, _Held]:
    own = copy(vars(part)).items()
    return {name: _Held.of(value) for name, value in own if name not in _NOT_LOOKED_AT}


def _is_same(entry: Any, later: Any) -> bool:
    if entry is later:
        return True
    return type(entry) is type(later) and isinstance(entry, int | float | str) and bool(entry == later)


def _is_made(old: Any, value: Any) -> bool:
    if isinstance(value, Tensor) and isinstance(old, Tensor):
        return old.shape != value.shape and not is_shown_by_vmap(value)
    if old is not None and (old is not _ABSENT or isinstance(value, int)):
        return False  # a count, which would go on
    return all(
        isinstance(leaf, Tensor | nn.Module | str | int | float | None) and not is_shown_by_vmap(leaf)
        for leaf in tree_leaves(value)
    )
