from __future__ import annotations

from dataclasses import dataclass, field

from fedlightning.callbacks.report import make_report


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
