"""Things that are in use at once have memory of their own; others share it."""

from __future__ import annotations

from itertools import combinations

import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.local.tapes.arena import Arena, Lifetime

CPU = torch.device("cpu")


def lifetime(size: int, span: tuple[int, int]) -> Lifetime:
    return Lifetime(size, CPU, min(span), max(span))


lifetimes = st.lists(
    st.builds(lifetime, st.integers(1, 300), st.tuples(st.integers(0, 9), st.integers(0, 9))), max_size=12
)


@given(st.lists(lifetimes, min_size=1, max_size=3))
def test_what_is_in_use_at_once_lies_apart(tapes: list[list[Lifetime]]) -> None:
    arena = Arena()
    for tape in tapes:
        homes = arena.homes(dict(enumerate(tape)))
        for number, own in enumerate(tape):
            assert homes[number].nbytes >= own.size
        for one, other in combinations(range(len(tape)), 2):
            if tape[one].first <= tape[other].last and tape[other].first <= tape[one].last:
                assert homes[one].data_ptr() != homes[other].data_ptr()


def test_memory_is_used_again() -> None:
    arena = Arena()
    in_turn = {number: Lifetime(1000, CPU, number, number) for number in range(9)}
    first = {home.data_ptr() for home in arena.homes(in_turn).values()}
    assert len(first) == 1
    assert {home.data_ptr() for home in arena.homes({0: Lifetime(900, CPU, 0, 5)}).values()} == first
