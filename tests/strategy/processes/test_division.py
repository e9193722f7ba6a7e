"""Every visit is dealt out once, in order, and what belongs to one mean stays together."""

from __future__ import annotations

from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.algorithms.blocks import block_size
from fedlightning.strategy.processes.division import pieces_of, portions_of

PROCESSES = st.integers(2, 9)


@given(st.integers(1, 700), PROCESSES)
def test_a_piece_is_a_block_or_a_visit(cohort: int, processes: int) -> None:
    size = block_size(cohort)
    pieces = pieces_of(cohort, size, processes)
    assert list(chain(*pieces)) == list(range(cohort))
    for piece in pieces:
        assert len(piece) == 1 or (piece.start % size == 0 and len(piece) in (size, cohort % size))


@pytest.mark.parametrize(
    ("cohort", "processes", "sizes"),
    [
        (50, 2, [2] * 24 + [1, 1]),
        (96, 3, [3] * 30 + [1] * 6),
        (10, 3, [1] * 10),
        (64, 4, [2] * 32),
    ],
)
def test_blocks_that_would_leave_processes_idle_are_divided(
    cohort: int, processes: int, sizes: list[int]
) -> None:
    assert [len(piece) for piece in pieces_of(cohort, block_size(cohort), processes)] == sizes


@given(st.lists(st.integers(1, 20), min_size=1, max_size=100), PROCESSES, st.integers(1, 10))
def test_portions_get_smaller_to_the_end(sizes: list[int], processes: int, most: int) -> None:
    portions = portions_of(sizes, processes, most)
    assert list(chain(*portions)) == list(range(len(sizes)))
    assert all(1 <= len(portion) <= most for portion in portions)
    visits = [sum(sizes[piece] for piece in portion) for portion in portions]
    left = [sum(visits[number:]) for number in range(len(visits))]
    for portion, own, rest in zip(portions, visits, left, strict=True):
        assert len(portion) == 1 or own <= max(rest / (1.5 * processes), sum(sizes) / (6 * processes))
    assert all(before.stop == after.start for before, after in pairwise(portions))
