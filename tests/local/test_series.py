"""Numbers with weights are combined as their reduction says, however long the series."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.local import series
from fedlightning.local.series import Series, snapshot

PAIRS = st.lists(st.tuples(st.floats(-100, 100, width=32), st.integers(1, 50)), min_size=1, max_size=9)
EXPECTED = {
    "mean": lambda pairs: sum(v * w for v, w in pairs) / sum(w for _, w in pairs),
    "sum": lambda pairs: sum(v for v, _ in pairs),
    "max": lambda pairs: max(v for v, _ in pairs),
    "min": lambda pairs: min(v for v, _ in pairs),
}


@pytest.mark.parametrize("longest", [2, 3, 1024])
@pytest.mark.parametrize("reduction", EXPECTED)
@pytest.mark.parametrize("as_tensors", [False, True])
@given(pairs=PAIRS)
def test_numbers_are_combined(
    reduction: str, longest: int, as_tensors: bool, pairs: list[tuple[float, int]]
) -> None:
    before, series.LONGEST = series.LONGEST, longest
    try:
        collected = Series(reduction)
        for value, weight in pairs:
            collected.add(torch.tensor(value) if as_tensors else value, weight)
        combined = collected.combined(torch.float32).item()
    finally:
        series.LONGEST = before
    assert combined == pytest.approx(EXPECTED[reduction](pairs), abs=1e-3, rel=1e-5)
    assert collected.weight == sum(weight for _, weight in pairs)


@given(
    value=st.floats(width=32, allow_nan=False), weights=st.lists(st.integers(1, 9), min_size=1, max_size=9)
)
def test_equal_numbers_give_that_number(value: float, weights: list[int]) -> None:
    collected = Series("mean")
    for weight in weights:
        collected.add(value, weight)
    assert collected.combined(torch.float32).item() == value


@pytest.mark.parametrize("reduction", EXPECTED)
def test_what_is_no_number_stays_none(reduction: str) -> None:
    collected = Series(reduction)
    for value in (1.0, math.nan, 2.0):
        collected.add(value, 1)
    assert math.isnan(collected.combined(torch.float32).item())


def test_a_snapshot_is_of_now() -> None:
    value = torch.ones(1, 1, requires_grad=True)
    taken = snapshot(value)
    with torch.no_grad():
        value.add_(1)
    assert taken == 1.0
