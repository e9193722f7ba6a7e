"""How a round's visits are dealt out to processes: pieces, whose means are taken, and portions of pieces.

What a piece is depends on the cohort alone, so that bits do; who gets which portion, on who is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from fedlightning.strategy.processes.messages import ColumnsDone, Mean


def pieces_of(cohort: int, size: int, processes: int) -> list[range]:
    """Cut a cohort into blocks, and those that would leave processes without work into single visits.

    The running mean of a block may be taken where its visits are made, or of single visits by whoever gets
    them: it is the same.

    Args:
        cohort: Visits in the round.
        size: Visits in a block.
        processes: How many processes there are.

    Returns:
        Positions of the visits of each piece, in order.

    Example:
        >>> pieces_of(10, 2, processes=2)
        [range(0, 2), range(2, 4), range(4, 6), range(6, 8), range(8, 9), range(9, 10)]
    """
    blocks = [range(first, min(first + size, cohort)) for first in range(0, cohort, size)]
    whole = len(blocks) - len(blocks) % processes
    singles = range(whole * size, cohort)
    return [*blocks[:whole], *(range(visit, visit + 1) for visit in singles)]


def portions_of(sizes: Sequence[int], processes: int, most: int) -> list[range]:
    """Put pieces together for one message each: many at first, few at the end, when all get done.

    A portion takes some 2 ms beside its visits, which is why there is a least as well.

    Args:
        sizes: Visits in each piece.
        processes: How many processes there are.
        most: Pieces in a portion at the most.

    Returns:
        Numbers of the pieces of each portion, in order.

    Example:
        >>> [len(portion) for portion in portions_of([2] * 25, processes=2, most=10)]
        [8, 5, 4, 2, 2, 2, 2]
    """
    portions, first, left = [], 0, sum(sizes)
    least = left / (6 * processes)
    while first < len(sizes):
        stop, share = first + 1, max(left / (1.5 * processes), least)
        left -= sizes[first]
        taken = sizes[first]
        while stop < min(len(sizes), first + most) and taken + sizes[stop] <= share:
            taken += sizes[stop]
            left -= sizes[stop]
            stop += 1
        portions.append(range(first, stop))
        first = stop
    return portions


def put_together(answers: Sequence[ColumnsDone], pieces: range) -> ColumnsDone:
    """Return what all processes have done of a portion as if one had done it.

    Args:
        answers: Theirs.
        pieces: Whose means are wanted; of one that nobody has taken, it is that of nothing.
    """
    means: dict[int, Mean] = {}
    for answer in answers:
        means.update(zip(answer.pieces, answer.means, strict=True))
    return ColumnsDone(
        answers[0].number,
        [means.get(piece, Mean(0, 0.0)) for piece in pieces],
        list(chain.from_iterable(answer.reports for answer in answers)),
        dict(chain.from_iterable(answer.metrics.items() for answer in answers)),
        dict(chain.from_iterable(answer.failures.items() for answer in answers)),
        next((answer.changed for answer in answers if answer.changed), ""),
        pieces=pieces,
    )
