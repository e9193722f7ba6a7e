"""Random orders, each a pure function of a 64-bit seed; those of many small shards in one call.

A visit to a small shard takes less time than drawing its order by a generator that has to be seeded first. So
the order of up to `SMALL` samples is that of their random keys, which are computed from seed and position
alone, for any number of shards at once; larger ones are shuffled one by one.
"""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

SMALL = 256
"""The most samples whose order is that of random keys; beyond, sorting takes longer than shuffling."""


def shuffled(size: int, seed: int) -> torch.Tensor:
    """Return a random permutation that depends on size and seed alone.

    Args:
        size: Of how many.
        seed: In ``[0, 2**64)``; torch's generator, which shuffles more than `SMALL`, uses its lower 32 bits.

    Returns:
        Shape ``(size,)``, int64.
    """
    if size > SMALL:
        return torch.randperm(size, generator=_own.generator.manual_seed(seed))
    return shuffled_together(size, np.array([seed], dtype=np.uint64))[0]


def shuffled_together(size: int, seeds: npt.NDArray[np.uint64]) -> torch.Tensor:
    """Return the permutation that `shuffled` gives for each of several seeds.

    Up to `SMALL`, position ``i`` has the key ``mix(seed + i * gamma)``: the i-th number of SplitMix64 from
    that seed (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"). Its upper 56
    bits decide. That two of them are equal, and keep their order, has a chance below 1e-12.

    Args:
        size: Of how many.
        seeds: Shape ``(permutations,)``.

    Returns:
        Shape ``(permutations, size)``, int64.

    Example:
        >>> seeds = np.array([7, 8], dtype=np.uint64)
        >>> both = shuffled_together(5, seeds)
        >>> torch.equal(both[1], shuffled(5, 8)), both[1].sort().values.tolist()
        (True, [0, 1, 2, 3, 4])
    """
    if size > SMALL:
        return torch.stack([shuffled(size, seed) for seed in seeds.tolist()])
    positions, steps = _places(size)
    keys = _mixed(seeds[:, None] + steps)
    # A key carries its position in its lowest bits, so that sorting the keys themselves brings that along.
    keys &= ~_POSITION
    keys |= positions
    keys.sort(axis=1)
    keys &= _POSITION
    return torch.from_numpy(keys.view(np.int64))


@lru_cache(maxsize=SMALL + 1)
def _places(size: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    positions = np.arange(size, dtype=np.uint64)
    return positions, positions * _GAMMA


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble numbers in place, each on its own, by SplitMix64's one-to-one function."""
    for shift, factor in _ROUNDS:
        numbers ^= numbers >> shift
        numbers *= factor
    numbers ^= numbers >> _LAST_SHIFT
    return numbers


_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_LAST_SHIFT = np.uint64(31)
_POSITION = np.uint64(SMALL - 1)


class _Own(threading.local):
    """A generator for each thread: seeded for each use, it need not be made for each."""

    def __init__(self) -> None:
        self.generator = torch.Generator()


_own = _Own()
