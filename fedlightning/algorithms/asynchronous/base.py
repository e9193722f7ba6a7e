"""What asynchronous servers have in common: when they step, and what an arrival amounts to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from fedlightning.algorithms.sampling.identity import identity_of


class Asynchronous(ABC):
    """Update the global model whenever some updates have arrived, while other workers are still under way.

    Example:
        >>> import torch
        >>> class TakesAll(Asynchronous):
        ...     buffer = 3
        ...     def arrived(self, now, start, end, staleness):
        ...         return [here + new - old for here, old, new in zip(now, start, end, strict=True)]
        >>> now, start, end = ([torch.tensor([value])] for value in (10.0, 4.0, 8.0))
        >>> TakesAll().arrived(now, start, end, staleness=5)
        [tensor([14.])]
    """

    buffer: int
    """Arrivals after which the server updates the global model."""

    mixes_buffers: ClassVar[bool] = False
    """Whether buffers are treated as parameters are, rather than averaged over the arrivals."""

    @abstractmethod
    def arrived(
        self, now: Sequence[Tensor], start: Sequence[Tensor], end: Sequence[Tensor], staleness: int
    ) -> Sequence[Tensor]:
        """Return what an arrival would have come to, had it begun at the global model of now.

        Args:
            now: The global model; not to be written to, like the others.
            start: The global model that the worker began with.
            end: What it has trained.
            staleness: The server's updates in between.

        Returns:
            What is averaged over the buffer, and becomes the global model.
        """

    @property
    def identity(self) -> str:
        """What a run must have in common with a checkpoint to go on from it, as text."""
        return identity_of(self)
