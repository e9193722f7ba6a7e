"""How a cohort is divided into blocks, each of which has a mean of its own before the mean of all is taken.

Blocks depend on the cohort's size alone. Whoever takes their means, in whatever order they are done, comes to
the same bits.
"""

from __future__ import annotations

MOST_BLOCKS = 32


def block_size(cohort: int) -> int:
    """Return how many workers are in a block; all but the last are of this size.

    Args:
        cohort: Workers in the cohort.

    Example:
        >>> block_size(10), block_size(32), block_size(33), block_size(500)
        (1, 1, 2, 16)
    """
    return max(1, -(-cohort // MOST_BLOCKS))


def block_of(position: int, cohort: int) -> int:
    """Return the number of the block that a worker is in.

    Args:
        position: The worker's place in the cohort, from 0.
        cohort: Workers in the cohort. Of a small one, whose blocks would be of one worker each, all are in
            one: its mean is the same.

    Example:
        >>> [block_of(position, cohort=10) for position in (0, 9)]
        [0, 0]
        >>> [block_of(position, cohort=40) for position in (0, 1, 2)]
        [0, 0, 1]
    """
    size = block_size(cohort)
    return position // size if size > 1 else 0
