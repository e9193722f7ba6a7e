"""What a module keeps beside tensors and torchmetrics: a step together changes it once for everybody."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from copy import copy
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from fedlightning.local.vectorised.functorch_calls import is_shown_by_vmap
from fedlightning.local.vectorised.refusal import NotBatchable

_NOT_LOOKED_AT = ("_parameters", "_buffers", "_modules", "_trainer", "log")

_Own = dict[str, tuple[Any, int]]
"""The attributes of a module, with their lengths as far as they have one."""


@dataclass(frozen=True)
class Attributes:
    """The plain attributes of a module and its parts at some time.

    Args:
        module: The module.
        own: Of each part by its path.
    """

    module: pl.LightningModule
    own: dict[str, _Own]

    @classmethod
    def of(cls, module: pl.LightningModule) -> Attributes:
        """Return those that a module has now.

        Args:
            module: The module.
        """
        return cls(module, {path: _own(part) for path, part in _parts(module)})

    def require_the_same(self, later: Attributes) -> None:
        """Compare them with those after a step.

        Args:
            later: Those.

        Raises:
            NotBatchable: Some have changed.
        """
        for path, own in later.own.items():
            before = self.own.get(path, {})
            for name, (value, length) in own.items():
                old, old_length = before.get(name, (None, 0))
                if old is not value or length != old_length or is_shown_by_vmap(value):
                    raise NotBatchable(f"training_step changes self.{f'{path}.{name}'.strip('.')}")

    def put_back(self) -> None:
        """Let the module have them again; what else a list was given is taken out of it."""
        for path, part in _parts(self.module):
            there, before = vars(part), self.own.get(path, {})
            for name in _own(part).keys() - before.keys():
                del there[name]
            for name, (value, length) in before.items():
                there[name] = value
                if isinstance(value, list):
                    del value[length:]


def _parts(module: pl.LightningModule) -> Iterator[tuple[str, nn.Module]]:
    # Metrics count in the one way and in the other.
    return (
        (path, part)
        for path, part in module.named_modules()
        if not isinstance(part, Metric | MetricCollection)
    )


def _own(part: nn.Module) -> _Own:
    return {
        name: (value, len(value) if _is_container(value) else 0)
        for name, value in copy(vars(part)).items()
        if name not in _NOT_LOOKED_AT
    }


def _is_container(value: Any) -> bool:
    return isinstance(value, Sized) and not isinstance(value, Tensor | str | nn.Module)
