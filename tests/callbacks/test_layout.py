from __future__ import annotations

from typing import Any

from fedlightning.callbacks.layout import end_table, start_table
from fedlightning.strategy import WorkerSummary


def summary(worker: str, samples: int, **values: Any) -> WorkerSummary:
    return WorkerSummary(
        **{
            "worker": worker,
            "samples": samples,
            "label_counts": {},
            "metrics": {},
            "sent_bytes": 0,
            "received_bytes": 0,
            **values,
        }
    )


TWO = [
    summary(
        "bob",
        6,
        label_counts={0: 4, 2: 2},
        metrics={"val/acc": 0.5},
        sent_bytes=1500,
        received_bytes=10,
        data_bytes=600,
    ),
    summary(
        "alice",
        4,
        label_counts={1: 4},
        metrics={"val/acc": 0.75},
        sent_bytes=500,
        received_bytes=20,
        data_bytes=400,
    ),
]


def test_before_a_fit_a_row_says_what_a_worker_holds() -> None:
    table = start_table(TWO, max_workers=2)
    assert table.head == ("worker", "samples", "share", "labels", "data")
    assert table.rows == (("bob", "6", "60.0%", "█·▄", "600 B"), ("alice", "4", "40.0%", "·█·", "400 B"))
    assert table.foot == ("global", "10", "100%", "██▄", "1 kB")


def test_after_a_fit_a_row_says_how_the_module_does_there() -> None:
    table = end_table(TWO, {"val/acc": 0.6, "train/loss": 3.0}, max_workers=2)
    assert table.head == ("worker", "samples", "labels", "val/acc", "sent", "received")
    assert table.rows == (
        ("bob", "6", "█·▄", "0.5000", "1.5 kB", "10 B"),
        ("alice", "4", "·█·", "0.7500", "500 B", "20 B"),
    )
    assert table.foot == ("global", "10", "██▄", "0.6000", "2 kB", "30 B")


def test_a_metric_that_only_some_have_is_a_dash() -> None:
    table = end_table([summary("bob", 1, metrics={"acc": 1.0}), summary("alice", 1)], {}, max_workers=2)
    assert [row[2] for row in table.rows] == ["1.0000", "-"]
    assert table.foot[2] == "-"


def test_labels_that_a_worker_keeps_to_itself_are_a_dash() -> None:
    table = start_table([summary("bob", 2, label_counts={0: 1, 1: 1}), summary("alice", 1)], max_workers=2)
    assert [row[3] for row in table.rows] == ["██", "-"]


def test_a_column_of_which_nothing_is_known_is_left_out() -> None:
    table = start_table([summary("bob", 1)], max_workers=1)
    assert table.head == ("worker", "samples", "share")


def test_of_many_workers_quantiles_are_shown() -> None:
    workers = [
        summary(
            f"worker-{n}", 100 + n, label_counts=dict.fromkeys(range(n % 2 + 1), 1), metrics={"acc": n / 100}
        )
        for n in range(101)
    ]
    table = end_table(workers, {"acc": 0.5}, max_workers=20)
    assert [row[0] for row in table.rows] == ["min", "p10", "median", "p90", "max"]
    assert [row[1] for row in table.rows] == ["100", "110", "150", "190", "200"]
    assert [row[2] for row in table.rows] == ["1 of 2", "1 of 2", "1 of 2", "2 of 2", "2 of 2"]
    assert [row[3] for row in table.rows] == ["0.0000", "0.1000", "0.5000", "0.9000", "1.0000"]
    assert table.foot[:2] == ("global", "15,150")


def test_nobody_at_all() -> None:
    assert start_table([], max_workers=1).rows == ()
