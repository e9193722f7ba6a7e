"""Which workers take part in a round, as pure functions of (seed, round). No state lives here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedlightning.workers.random import derive_seed


def uniform_cohort(workers: Sequence[str], size: int, *, seed: int, round: int) -> tuple[str, ...]:
    """Draw a cohort uniformly, without replacement (McMahan et al. 2017, Algorithm 1).

    The draw depends on the set of names, not on the order in which they are listed.

    Args:
        workers: Names of all workers.
        size: Number of workers to draw. At ``len(workers)``, everybody takes part and nothing is drawn.
        seed: Seed of the run.
        round: Number of the round.

    Returns:
        The cohort's names, sorted.

    Example:
        >>> uniform_cohort(["alice", "bob", "carol"], 3, seed=0, round=7)
        ('alice', 'bob', 'carol')
    """
    return cohort_of_sorted(sorted(workers), size, seed=seed, round=round)


def cohort_of_sorted(names: Sequence[str], size: int, *, seed: int, round: int) -> tuple[str, ...]:
    """Draw the cohort of ``uniform_cohort`` from names that are sorted, at a price that depends on its size.

    Args:
        names: Names of all workers, sorted.
        size: As for ``uniform_cohort``, like the rest.
        seed: Seed of the run.
        round: Number of the round.
    """
    if size >= len(names):
        return tuple(names)
    generator = np.random.default_rng(derive_seed(seed, "cohort", round))
    chosen = generator.choice(len(names), size=size, replace=False)
    return tuple(names[position] for position in sorted(chosen))
