"""One step of what is done to an update: applied at the worker, undone where updates are combined."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

Shapes = Sequence[tuple[int, ...]]


class Keeper(Protocol):
    """Keep something at a worker from one visit to the next."""

    def kept(self, name: str) -> list[Tensor] | None:
        """Return what was kept under a name, or ``None``."""

    def keep(self, name: str, tensors: Sequence[Tensor]) -> None:
        """Keep something under a name."""


class Memo:
    """Keep things in this process: for a notebook or a test, in place of a worker.

    Example:
        >>> memo = Memo()
        >>> memo.keep("lost", [torch.ones(1)])
        >>> memo.kept("lost")
        [tensor([1.])]
    """

    def __init__(self) -> None:
        self._tensors: dict[str, list[Tensor]] = {}

    def kept(self, name: str) -> list[Tensor] | None:
        """Return what was kept under a name, or ``None``."""
        return self._tensors.get(name)

    def keep(self, name: str, tensors: Sequence[Tensor]) -> None:
        """Keep something under a name."""
        self._tensors[name] = list(tensors)

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return what is kept."""
        return dict(self._tensors)

    def load_state_dict(self, state: Mapping[str, Sequence[Tensor]]) -> None:
        """Keep what was kept elsewhere."""
        self._tensors = {name: list(tensors) for name, tensors in state.items()}


class Postprocessor(ABC):
    """Change what is sent of an update, or make it smaller.

    A frozen dataclass of settings. Random numbers are drawn from torch's global generator, which at a worker
    is the visit's own.
    """

    @abstractmethod
    def apply(self, tensors: list[Tensor], keeper: Keeper) -> tuple[list[Tensor], list[Tensor]]:
        """Process at the worker; within ``no_grad``.

        Args:
            tensors: The way that each trained parameter has gone, or what the step before has made of it;
                floating point, not to be written to.
            keeper: Keeps things at the worker.

        Returns:
            What the next step processes, and what goes along for `undo`.
        """

    def undo(self, tensors: list[Tensor], along: list[Tensor], shapes: Shapes) -> list[Tensor]:
        """Undo it as far as it can be undone, where updates are combined.

        Args:
            tensors: What `apply` returned first, as far as later steps could be undone.
            along: What `apply` returned second.
            shapes: Shapes of what `apply` was given.
        """
        return tensors

    def shapes(self, shapes: Shapes) -> Shapes:
        """Return the shapes of what `apply` returns first, given those of what it gets."""
        return shapes


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return all entries in a row."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors]) if tensors else torch.zeros(0)


def split(row: Tensor, shapes: Shapes) -> list[Tensor]:
    """Cut a row of entries into tensors, which is the inverse of `flat`."""
    parts = torch.split(row, [count(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def count(shape: tuple[int, ...]) -> int:
    """Return the number of entries of a tensor of some shape."""
    return torch.Size(shape).numel()
