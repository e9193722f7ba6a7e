"""Label skew by Dirichlet draws, in the field's two variants."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from fedlightning.data.checks import check_count, check_real
from fedlightning.data.labels import Column, Values, find_labels
from fedlightning.data.map_style import MapStyle
from fedlightning.data.partition.base import Indices, Partitioner, cut
from fedlightning.data.partition.counts import check_minimum, counts_from_shares, lift_small_workers


def split_classes(labels: Values, num_workers: int, alpha: float, rng: np.random.Generator) -> list[Indices]:
    """Divide each class over the workers by its own Dirichlet draw; a worker may end up empty.

    For each class k draw ``p_k ~ Dir(alpha * 1)`` over the workers and give worker j the share ``p_kj`` of
    the samples of class k (Yurochkin et al. 2019, section 4, "heterogeneous partition").

    Args:
        labels: One class per sample, shape ``(N,)``.
        num_workers: Number of workers, J.
        alpha: Concentration: small for few classes per worker, large for equal shares.
        rng: Source of randomness.

    Returns:
        One array of sample numbers per worker.
    """
    pieces: list[list[Indices]] = [[] for _ in range(num_workers)]
    for label in np.unique(labels):
        samples = rng.permutation(np.flatnonzero(labels == label))
        counts = counts_from_shares(_dirichlet(alpha, np.ones(num_workers), rng), len(samples))
        for worker, piece in enumerate(cut(samples, counts)):
            pieces[worker].append(piece)
    return [np.concatenate(piece) for piece in pieces]


def draw_equal_sizes(
    labels: Values, num_workers: int, alpha: float, rng: np.random.Generator
) -> list[Indices]:
    """Fill workers of equal size, one after another, each by its own Dirichlet draw over the classes.

    Worker j draws ``q_j ~ Dir(alpha * p)``, p being the share of each class in the data, then its samples
    one by one without replacement, class by ``q_j``, renormalised over the classes that are left (Hsu, Qi and
    Brown 2019, section 3). Late workers get what early ones left.

    Args:
        labels: One class per sample, shape ``(N,)``.
        num_workers: Number of workers.
        alpha: Concentration: 0 in the limit for one class per worker, large for the population's shares.
        rng: Source of randomness.

    Returns:
        One array of sample numbers per worker; sizes differ by at most 1.
    """
    classes, class_sizes = np.unique(labels, return_counts=True)
    stacks = [rng.permutation(np.flatnonzero(labels == label)) for label in classes]
    left = class_sizes.copy()
    parts = []
    for size in len(labels) // num_workers + (np.arange(num_workers) < len(labels) % num_workers):
        taken = _draw_without_replacement(alpha, class_sizes / len(labels), left, int(size), rng)
        parts.append(np.concatenate([s[n - t : n] for s, n, t in zip(stacks, left, taken, strict=True)]))
        left -= taken
    return parts


@dataclass(frozen=True)
class Dirichlet(Partitioner):
    """Give workers different mixtures of labels, by Dirichlet draws.

    Two variants are in use under this name:

    - ``balanced=False``: each **class** is divided by a draw over the workers, so sizes differ too (Yurochkin
      et al. 2019, "Bayesian Nonparametric Federated Learning of Neural Networks"; also Li et al. 2022,
      NIID-Bench). Their code draws again until every worker has 10 samples; here random samples move from the
      largest workers to those below ``min_samples``, which always ends.
    - ``balanced=True``: each **worker** draws its mixture of classes, and all have the same size (Hsu, Qi and
      Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
      Classification").

    Args:
        alpha: Concentration, above 0. 0.1 is strong skew, 100 is close to `IID`.
        min_samples: Fewest samples at a worker, at least 1.
        balanced: Which of the two variants.
        labels: Where the labels are, if the dataset does not show them (see `find_labels`).
        seed: Seed of this partition alone; None takes the strategy's.

    Raises:
        ValueError: If alpha is not a positive finite number, or ``min_samples`` is below 1.

    Example:
        >>> labels = np.arange(1000) % 10
        >>> Dirichlet(alpha=0.3, balanced=True, labels=labels).split(labels, num_workers=4).sizes
        (250, 250, 250, 250)
    """

    alpha: float = 0.3
    min_samples: int = 1
    balanced: bool = field(default=False, kw_only=True)
    labels: Column | None = field(default=None, kw_only=True, repr=False, compare=False)

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_real(
            "alpha",
            self.alpha,
            zero_allowed=False,
            remedy="Use 0.1 for strong label skew, or IID() for no skew at all.",
        )
        check_count("min_samples", self.min_samples)

    @override
    def partition(self, dataset: MapStyle, num_workers: int, rng: np.random.Generator) -> list[Indices]:
        labels = find_labels(dataset, self.labels)
        check_minimum(self.min_samples, len(labels), num_workers)
        if self.balanced:
            return draw_equal_sizes(labels, num_workers, self.alpha, rng)
        parts = split_classes(labels, num_workers, self.alpha, rng)
        return lift_small_workers(parts, self.min_samples, rng)


def _dirichlet(
    alpha: float, base: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw from ``Dir(alpha * base)``, also where alpha is beyond what floating point can draw from."""
    if alpha < 1e-100:
        # The limit for alpha -> 0: everything to one, chosen in proportion to the base.
        winner = rng.choice(len(base), p=base / base.sum())
        shares: npt.NDArray[np.float64] = np.eye(len(base), dtype=np.float64)[winner]
    else:
        shares = rng.dirichlet(min(alpha, 1e100) * base)
    return shares


def _draw_without_replacement(
    alpha: float, base: npt.NDArray[np.float64], left: Indices, size: int, rng: np.random.Generator
) -> Indices:
    """Draw shares, then classes one by one by them, renormalised whenever a class runs out.

    Drawing many at once and drawing the ones too many again has the same distribution, in at most one pass
    per class.
    """
    shares = _dirichlet(alpha, base, rng)
    taken = np.zeros_like(left)
    while (missing := size - taken.sum()) > 0:
        open_classes = taken < left
        if shares[open_classes].sum() == 0.0:
            # Underflow. A renormalised part of a Dirichlet draw is a Dirichlet draw itself, so draw that.
            shares = np.zeros_like(shares)
            shares[open_classes] = _dirichlet(alpha, base[open_classes], rng)
        available = np.where(open_classes, shares, 0.0)
        drawn = rng.multinomial(missing, available / available.sum())
        taken += np.minimum(drawn, left - taken)
    return taken
