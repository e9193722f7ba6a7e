from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.callbacks.report import bars, human_bytes, make_report


@dataclass(frozen=True)
class Reported:
    worker: str
    samples: int
    label_counts: dict[int, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    sent_bytes: int = 0
    received_bytes: int = 0


def test_a_row_per_worker_and_the_sums() -> None:
    report = make_report(
        [
            Reported("bob", 6, {0: 4, 2: 2}, {"val/acc": 0.5}, sent_bytes=1500, received_bytes=10),
            Reported("alice", 4, {1: 4}, {"val/acc": 0.75}, sent_bytes=500, received_bytes=20),
        ],
        {"val/acc": 0.6, "train/loss": 3.0},
    )
    assert report.head == ("worker", "samples", "labels", "val/acc", "sent", "received")
    assert report.rows == (
        ("bob", "6", "█·▄", "0.5000", "1.5 kB", "10 B"),
        ("alice", "4", "·█·", "0.7500", "500 B", "20 B"),
    )
    assert report.foot == ("global", "10", "██▄", "0.6000", "2 kB", "30 B")


def test_a_metric_that_only_some_have_is_a_dash() -> None:
    report = make_report([Reported("bob", 1, {}, {"acc": 1.0}), Reported("alice", 1)], {})
    assert [row[3] for row in report.rows] == ["1.0000", "-"]
    assert report.foot[3] == "-"


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
