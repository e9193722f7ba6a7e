"""Whole numbers of samples from shares, and samples moved so that nobody has too few."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedlightning.data.partition.base import Indices


def counts_from_shares(shares: npt.NDArray[np.float64], total: int) -> Indices:
    """Round shares of a total to whole numbers that add up to it.

    The edges between neighbours are rounded, not the shares, so each count is within 1 of its exact value.

    Args:
        shares: Non-negative numbers of shape ``(K,)`` with a positive sum; they need not sum to 1.
        total: What to divide.

    Returns:
        Non-negative integers of shape ``(K,)`` with sum ``total``.

    Example:
        >>> counts_from_shares(np.array([0.5, 0.25, 0.25]), 8)
        array([4, 2, 2])
    """
    cumulative = np.cumsum(shares)
    edges: Indices = np.rint(cumulative / cumulative[-1] * total).astype(np.int64)
    counts: Indices = np.diff(edges, prepend=0)
    return counts


def lift_small_workers(parts: Sequence[Indices], minimum: int, rng: np.random.Generator) -> list[Indices]:
    """Move random samples from the largest workers to those with fewer than ``minimum``.

    It ends always, unlike drawing the whole partition again until it happens to be valid: each move
    brings one worker nearer to the minimum, and the largest has more than the minimum as long as any has
    less.

    Args:
        parts: One array of sample numbers per worker; at least ``minimum`` times the workers in total.
        minimum: Smallest allowed number of samples at a worker.
        rng: Chooses which samples move.

    Returns:
        One array per worker, each of length ``minimum`` or more; the given arrays where none was too small.
    """
    sizes = np.array([len(part) for part in parts])
    if sizes.min() >= minimum:
        return list(parts)
    lists = [rng.permutation(part).tolist() for part in parts]
    for poor in np.flatnonzero(sizes < minimum):
        while sizes[poor] < minimum:
            rich = int(sizes.argmax())
            lists[poor].append(lists[rich].pop())
            sizes[poor] += 1
            sizes[rich] -= 1
    return [np.array(samples, dtype=np.int64) for samples in lists]


def check_minimum(minimum: int, num_samples: int, num_workers: int) -> None:
    """Refuse a minimum per worker that the data cannot give.

    Raises:
        ValueError: If ``minimum`` times the workers is more than there are samples.
    """
    if minimum * num_workers > num_samples:
        raise ValueError(
            f"min_samples={minimum} for each of {num_workers} workers needs {minimum * num_workers} "
            f"samples, got {num_samples}. Use min_samples of at most {num_samples // num_workers}, or "
            "fewer workers."
        )
