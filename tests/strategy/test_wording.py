from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.strategy.wording import bars, human_bytes


@given(st.lists(st.integers(0, 10_000), max_size=20))
def test_bars_are_as_high_as_their_counts_are_large(counts: list[int]) -> None:
    drawn = bars(counts)
    assert len(drawn) == len(counts)
    heights = ["·▁▂▃▄▅▆▇█".index(bar) for bar in drawn]
    assert [height == 0 for height in heights] == [count == 0 for count in counts]
    assert all(
        a <= b
        for (_, a), (_, b) in zip(_ordered(counts, heights), _ordered(counts, heights)[1:], strict=False)
    )
    assert not any(counts) or max(heights) == 8


def _ordered(counts: list[int], heights: list[int]) -> list[tuple[int, int]]:
    return sorted(zip(counts, heights, strict=True))


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (5_000_000_000_000_000, "5e+03 TB")],
)
def test_bytes_are_written_with_their_unit(count: int, text: str) -> None:
    assert human_bytes(count) == text
