"""Aggregation that survives bad workers: rules that combine updates so that a few cannot carry the rest away.

A rule sees all updates of a round at once, as rows of a matrix, beside the point that all workers started
from. How updates become rows is in ``combining``; the plain mean, which needs no matrix, is in ``update``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override


class AggregationRule(ABC):
    """Combine the updates of a round.

    Example:
        >>> class Largest(AggregationRule):
        ...     def combine(self, updates, weights, start):
        ...         return updates.max(dim=0).values
        >>> Largest().combine(torch.tensor([[1.0], [3.0]]), torch.ones(2), torch.zeros(1))
        tensor([3.])
    """

    needs_root: ClassVar[bool] = False
    """Whether the first row is the server's own, trained on root data, which is no worker's."""

    by_coordinate: ClassVar[bool] = False
    """Whether each entry is combined by itself, so that buffers are, too; else these follow their median."""

    @abstractmethod
    def combine(self, updates: Tensor, weights: Tensor, start: Tensor) -> Tensor:
        """Return what stands for the updates.

        Args:
            updates: One row per worker, shape ``(workers, entries)``, floating point.
            weights: Weight of each worker, shape ``(workers,)``, positive; as a rule its number of samples.
            start: What all workers started from, shape ``(entries,)``; zeros where gradients or buffers are
                combined.

        Returns:
            Shape ``(entries,)``.

        Raises:
            ValueError: There are too few workers for the rule.
        """

    @property
    def least_workers(self) -> int:
        """The fewest updates that the rule can combine."""
        return 1

    def check_cohort(self, size: int) -> None:
        """Check that a round has enough workers.

        Raises:
            ValueError: It has not.
        """
        if size < self.least_workers:
            raise ValueError(
                f"{self} needs at least {self.least_workers} workers in a round, and there are {size}. Use a "
                "larger cohort, or assume fewer bad workers."
            )


@dataclass(frozen=True)
class Median(AggregationRule):
    """Take the median of each coordinate; weights are not used (Yin et al. 2018, Definition 1).

    For an even number of workers, the mean of the two in the middle.

    Example:
        >>> Median().combine(torch.tensor([[1.0], [2.0], [900.0]]), torch.ones(3), torch.zeros(1))
        tensor([2.])
    """

    by_coordinate: ClassVar[bool] = True

    @override
    def combine(self, updates: Tensor, weights: Tensor, start: Tensor) -> Tensor:
        # Not torch's, which takes the lower one of the two in the middle.
        ordered = updates.sort(dim=0).values
        count = len(ordered)
        return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2


@dataclass(frozen=True)
class TrimmedMean(AggregationRule):
    """Leave out the largest and smallest entries of each coordinate, and average the rest.

    Yin et al. 2018, Definition 2. Weights count among the entries that are left; with nothing trimmed this is
    the weighted mean.

    Args:
        fraction: Share of the workers that is left out at each end, in [0, 1/2); rounded down to workers.

    Raises:
        ValueError: The fraction is out of range.

    Example:
        >>> updates = torch.tensor([[1.0], [2.0], [4.0], [900.0]])
        >>> TrimmedMean(0.25).combine(updates, torch.ones(4), torch.zeros(1))
        tensor([3.])
    """

    by_coordinate: ClassVar[bool] = True
    fraction: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.fraction < 0.5:
            raise ValueError(
                f"fraction must be at least 0 and below 0.5, got {self.fraction!r}: each end loses it. Use "
                "the share of workers that may be bad, such as 0.2."
            )

    @override
    def combine(self, updates: Tensor, weights: Tensor, start: Tensor) -> Tensor:
        count = len(updates)
        trimmed = int(self.fraction * count)
        ordered, order = updates.sort(dim=0, stable=True)
        kept = slice(trimmed, count - trimmed)
        shares = weights.to(updates)[order[kept]]
        return (ordered[kept] * shares).sum(0) / shares.sum(0)


@dataclass(frozen=True)
class Krum(AggregationRule):
    """Take the update that is closest to its nearest others, or the mean of several such.

    Blanchard et al. 2017, section 4. The score of an update is the sum of squared distances to its
    ``workers - bad - 2`` nearest others.

    Args:
        bad: How many workers may be bad, at least 0; ``2 * bad + 3`` must take part in a round.
        selected: How many of the best are averaged, by weight: 1 is Krum, more is multi-Krum.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> updates = torch.tensor([[0.0], [1.0], [2.0], [3.0], [900.0]])
        >>> Krum(bad=1).combine(updates, torch.ones(5), torch.zeros(1))
        tensor([1.])
        >>> Krum(bad=1, selected=2).combine(updates, torch.ones(5), torch.zeros(1))
        tensor([1.5000])
    """

    bad: int = 1
    selected: int = 1

    def __post_init__(self) -> None:
        _check_count("bad", self.bad, least=0)
        _check_count("selected", self.selected, least=1)

    @property
    @override
    def least_workers(self) -> int:
        return max(2 * self.bad + 3, self.selected + self.bad + 2 if self.selected > 1 else 0)

    @override
    def combine(self, updates: Tensor, weights: Tensor, start: Tensor) -> Tensor:
        self.check_cohort(len(updates))
        best = krum_scores(updates, self.bad).argsort(stable=True)[: self.selected]
        return _mean(updates[best], weights[best])


@dataclass(frozen=True)
class Bulyan(AggregationRule):
    """Select updates by Krum again and again, then average what is closest to their median, by coordinate.

    El Mhamdi et al. 2018, section 4: of ``workers`` updates, ``workers - 2 bad`` are selected, and of their
    entries in each coordinate the ``workers - 4 bad`` nearest to the median are averaged.

    Args:
        bad: How many workers may be bad, at least 0; ``4 * bad + 3`` must take part in a round.

    Raises:
        ValueError: The number is negative.

    Example:
        >>> updates = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [900.0]])
        >>> Bulyan(bad=1).combine(updates, torch.ones(7), torch.zeros(1))
        tensor([2.])
    """

    bad: int = 1

    def __post_init__(self) -> None:
        _check_count("bad", self.bad, least=0)

    @property
    @override
    def least_workers(self) -> int:
        return 4 * self.bad + 3

    @override
    def combine(self, updates: Tensor, weights: Tensor, start: Tensor) -> Tensor:
        self.check_cohort(len(updates))
        left, selected = updates, []
        for _ in range(len(updates) - 2 * self.bad):
            best = int(krum_scores(left, self.bad).argmin())
            selected.append(left[best])
            left = torch.cat([left[:best], left[best + 1 :]])
        chosen = torch.stack(selected)
        median = Median().combine(chosen, weights, start)
        nearest = (chosen - median).abs().argsort(dim=0, stable=True)[: len(chosen) - 2 * self.bad]
        return chosen.gather(0, nearest).mean(0)


@dataclass(frozen=True)
class GeometricMedian(AggregationRule):
    """Take the point whose weighted sum of distances to the updates is least (RFA).

    Pillutla, Kakade and Harchaoui 2022, Algorithm 2: the smoothed Weiszfeld algorithm.

    Args:
        iterations: Steps of Weiszfeld's algorithm, at least 1.
        smoothing: Distances below this count as this, above 0.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> updates = torch.tensor([[1.0], [1.0], [1.0], [900.0]])
        >>> GeometricMedian().combine(updates, torch.ones(4), torch.zeros(1)).round(decimals=2)
        tensor([1.0100])
    """

    iterations: int = 10
    smoothing: float = 1e-6

    def __post_init__(self) -> None:
        _check_count("iterations", self.iterations, least=1)
        if not self.smoothing > 0:
            raise ValueError(f"smoothing must be positive, got {self.smoothing!r}.")

    @override
    def combine(self, updates: Tensor, weights: Tensor, start: Tensor) -> Tensor:
        point = _mean(updates, weights)
        for _ in range(self.iterations):
            distances = (updates - point).norm(dim=1).clamp_min(self.smoothing)
            point = _mean(updates, weights.to(updates) / distances)
        return point


@dataclass(frozen=True)
class NormBounded(AggregationRule):
    """Shorten each worker's step to a length, and average (Sun et al. 2019, section 5).

    Args:
        length: The longest step that counts in full, as a Euclidean norm over all parameters, above 0.

    Raises:
        ValueError: The length is not positive.

    Example:
        >>> updates = torch.tensor([[0.5], [900.0]])
        >>> NormBounded(1.0).combine(updates, torch.ones(2), torch.zeros(1))
        tensor([0.7500])
    """

    length: float

    def __post_init__(self) -> None:
        _check_length("length", self.length)

    @override
    def combine(self, updates: Tensor, weights: Tensor, start: Tensor) -> Tensor:
        return start + _mean(_shortened(updates - start, self.length), weights)


@dataclass(frozen=True)
class CenteredClipping(AggregationRule):
    """Average the workers' steps after clipping them around a centre that moves to their mean.

    Karimireddy, He and Jaggi 2021, equation (6), begun at the workers' start.

    Args:
        radius: How far from the centre a step counts in full, as a Euclidean norm, above 0.
        iterations: How often the centre moves, at least 1.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> updates = torch.tensor([[1.0], [1.0], [1.0], [900.0]])
        >>> CenteredClipping(radius=1.0).combine(updates, torch.ones(4), torch.zeros(1))
        tensor([1.3125])
    """

    radius: float
    iterations: int = 3

    def __post_init__(self) -> None:
        _check_length("radius", self.radius)
        _check_count("iterations", self.iterations, least=1)

    @override
    def combine(self, updates: Tensor, weights: Tensor, start: Tensor) -> Tensor:
        centre = start
        for _ in range(self.iterations):
            centre = centre + _mean(_shortened(updates - centre, self.radius), weights)
        return centre


def krum_scores(updates: Tensor, bad: int) -> Tensor:
    """Return, for each update, the sum of squared distances to its nearest others.

    Args:
        updates: Shape ``(workers, entries)``.
        bad: How many workers may be bad; all but ``bad + 2`` are among the nearest, and at least one is.

    Returns:
        Shape ``(workers,)``.
    """
    squared = torch.cdist(updates, updates, compute_mode="donot_use_mm_for_euclid_dist").square()
    squared.fill_diagonal_(float("inf"))
    nearest = max(1, len(updates) - bad - 2)
    return squared.sort(dim=1).values[:, :nearest].sum(dim=1)


def _mean(updates: Tensor, weights: Tensor) -> Tensor:
    shares = weights.to(updates)
    return (updates * (shares / shares.sum())[:, None]).sum(0)


def _shortened(steps: Tensor, length: float) -> Tensor:
    shortened: Tensor = steps * (length / steps.norm(dim=1, keepdim=True).clamp_min(length))
    return shortened


def _check_count(name: str, value: int, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")


def _check_length(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value!r}.")
