"""Skew of sizes alone: some workers have many samples, others few, all from the same distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from fedlightning.data.checks import check_count, check_real
from fedlightning.data.map_style import MapStyle
from fedlightning.data.partition.base import Indices, Partitioner, cut
from fedlightning.data.partition.counts import check_minimum, counts_from_shares


def deal_by_weight(
    num_samples: int, weights: npt.NDArray[np.float64], min_samples: int, rng: np.random.Generator
) -> list[Indices]:
    """Deal samples at random: ``min_samples`` to everybody, and the rest in proportion to the weights.

    Args:
        num_samples: Number of samples, at least ``min_samples`` times the workers.
        weights: One non-negative number per worker, shape ``(num_workers,)``.
        min_samples: What everybody gets.
        rng: Source of randomness.

    Returns:
        One array of sample numbers per worker.
    """
    check_minimum(min_samples, num_samples, len(weights))
    rest = num_samples - min_samples * len(weights)
    return cut(rng.permutation(num_samples), min_samples + counts_from_shares(weights, rest))


@dataclass(frozen=True)
class PowerLaw(Partitioner):
    """Give the j-th worker samples in proportion to ``j ** -exponent`` (Zipf's law); the first has most.

    Many federated data sets are like this: most workers have few samples, a few have many (Li et al. 2020,
    FedProx, section 5.1, "the number of samples per device follows a power law").

    Args:
        exponent: How fast sizes fall, non-negative; 0 gives equal sizes, 1 is Zipf's law proper.
        min_samples: What everybody gets before the rest is divided, at least 1.
        seed: Seed of this partition alone; None takes the strategy's.

    Raises:
        ValueError: If the exponent is negative or not finite, or ``min_samples`` is below 1.

    Example:
        >>> PowerLaw(exponent=1.0).split(range(1103), num_workers=3).sizes
        (601, 301, 201)
    """

    exponent: float = 1.0
    min_samples: int = 1

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_real(
            "exponent", self.exponent, zero_allowed=True, remedy="Use 0 for equal sizes, 1 for Zipf's law."
        )
        check_count("min_samples", self.min_samples)

    @override
    def partition(self, dataset: MapStyle, num_workers: int, rng: np.random.Generator) -> list[Indices]:
        weights = np.arange(1, num_workers + 1, dtype=np.float64) ** -self.exponent
        return deal_by_weight(len(dataset), weights, self.min_samples, rng)


@dataclass(frozen=True)
class LogNormal(Partitioner):
    """Give workers samples in proportion to log-normal draws, ``exp(sigma * N(0, 1))``.

    The reference code of FedProx (Li et al. 2020) draws the sizes of Synthetic(alpha, beta) so, with
    sigma = 2.

    Args:
        sigma: Standard deviation of the logarithm of the sizes, non-negative; 0 gives equal sizes.
        min_samples: What everybody gets before the rest is divided, at least 1.
        seed: Seed of this partition alone; None takes the strategy's.

    Raises:
        ValueError: If sigma is negative or not finite, or ``min_samples`` is below 1.

    Example:
        >>> LogNormal(sigma=0.0).split(range(9), num_workers=3).sizes
        (3, 3, 3)
    """

    sigma: float = 1.0
    min_samples: int = 1

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_real(
            "sigma", self.sigma, zero_allowed=True, remedy="Use 0 for equal sizes, 1 to 2 for strong skew."
        )
        check_count("min_samples", self.min_samples)

    @override
    def partition(self, dataset: MapStyle, num_workers: int, rng: np.random.Generator) -> list[Indices]:
        logarithms = self.sigma * rng.standard_normal(num_workers)
        # Divided by the largest, so that no exponential overflows; the shares are the same.
        weights = np.exp(logarithms - logarithms.max())
        return deal_by_weight(len(dataset), weights, self.min_samples, rng)
