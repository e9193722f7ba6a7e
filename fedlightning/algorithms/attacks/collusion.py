"""Attacks that bad workers agree on, knowing what the good ones send; where updates are combined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from statistics import NormalDist

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.attacks.bad_workers import BAD, Collusion
from fedlightning.algorithms.combining import Combiner
from fedlightning.algorithms.numbers import require_at_least
from fedlightning.algorithms.update import Update
from fedlightning.workers.remote import record


@record
@dataclass(frozen=True)
class ALIE(Collusion):
    """Stay within the spread of the good updates, at its edge (Baruch et al. 2019, "A Little Is Enough").

    Every entry is the good workers' mean less ``z`` standard deviations (Algorithm 3).

    Args:
        z: How many; ``None`` for the most that hides among the good ones, by the paper's equation 1.

    Example:
        >>> ALIE(z=1.0).agree(torch.tensor([[1.0], [3.0]]), bad=1)
        tensor([0.5858])
    """

    z: float | None = None

    def __post_init__(self) -> None:
        if self.z is not None:
            require_at_least("z", self.z, 0)

    @override
    def agree(self, good: Tensor, bad: int) -> Tensor:
        spread = good.std(dim=0) if len(good) > 1 else torch.zeros_like(good[0])
        return good.mean(dim=0) - self._z(len(good) + bad, bad) * spread

    def _z(self, workers: int, bad: int) -> float:
        if self.z is not None:
            return self.z
        supporters = floor(workers / 2 + 1) - bad
        share = (workers - bad - supporters) / (workers - bad)
        # With a majority of bad workers there is nobody to hide from.
        return NormalDist().inv_cdf(min(max(share, 0.5), 0.999))


@record
@dataclass(frozen=True)
class InnerProduct(Collusion):
    """Go against the good workers' mean, by little enough to pass (Xie et al. 2020, "Fall of Empires").

    Args:
        epsilon: How far, as a multiple of the good workers' mean.

    Example:
        >>> InnerProduct(epsilon=0.5).agree(torch.tensor([[1.0], [3.0]]), bad=1)
        tensor([-1.])
    """

    epsilon: float = 0.5

    def __post_init__(self) -> None:
        require_at_least("epsilon", self.epsilon, 0)

    @override
    def agree(self, good: Tensor, bad: int) -> Tensor:
        return -self.epsilon * good.mean(dim=0)


class CollusionCombiner:
    """Put what bad workers have agreed on in place of their updates, before all are combined.

    Memory grows with the cohort.

    Args:
        inner: Combines them.
        collusion: What the bad workers do.
        start: What all workers started from; copied.

    Example:
        >>> from fedlightning.algorithms import UpdateMean
        >>> combiner = CollusionCombiner(UpdateMean(), InnerProduct(epsilon=1.0), [torch.zeros(1)])
        >>> for way, bad in ((2.0, 0.0), (9.0, 1.0)):
        ...     sent = {"attack/bad": [torch.tensor(bad)]}
        ...     combiner.add(Update([torch.tensor([way])], [True], [], sent), weight=1.0)
        >>> combiner.result().tensors
        [tensor([0.])]
    """

    def __init__(self, inner: Combiner, collusion: Collusion, start: Sequence[Tensor]) -> None:
        self._inner = inner
        self._collusion = collusion
        self._start = [tensor.detach().clone() for tensor in start]
        self._added: list[tuple[Update, float, int, bool]] = []

    def add(self, update: Update, weight: float, block: int = 0) -> None:
        """Take an update; see `Combiner`."""
        extras = {name: tensors for name, tensors in update.extras.items() if name != BAD}
        copied = Update(update.tensors, update.present, update.buffers, extras).copied()
        self._added.append((copied, weight, block, bool(update.extras[BAD][0])))

    @torch.no_grad()
    def result(self) -> Update | None:
        """Return what stands for all of them; see `Combiner`."""
        ways = [self._way(update) for update, _, _, bad in self._added if not bad]
        bad = len(self._added) - len(ways)
        agreed = self._collusion.agree(torch.stack(ways), bad) if ways and bad else None
        for update, weight, block, is_bad in self._added:
            claimed = self._claimed(update, agreed) if is_bad and agreed is not None else update
            self._inner.add(claimed, weight, block)
        return self._inner.result()

    def _way(self, update: Update) -> Tensor:
        pairs = zip(update.tensors, self._start, strict=True)
        return torch.cat([(tensor - before).reshape(-1).float() for tensor, before in pairs])

    def _claimed(self, update: Update, way: Tensor) -> Update:
        parts = torch.split(way, [tensor.numel() for tensor in self._start])
        pairs = zip(parts, self._start, strict=True)
        tensors = [before + part.view(before.shape).to(before.dtype) for part, before in pairs]
        return Update(tensors, update.present, update.buffers, update.extras)
