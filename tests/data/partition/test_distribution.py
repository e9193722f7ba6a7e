from __future__ import annotations

import numpy as np
import pytest

from fedlightning.data.partition import LabelShares

LABELS = np.array([0] * 10 + [1] * 20)


def test_counts_follow_the_table() -> None:
    parts = LabelShares([[3, 0], [1, 1], [1, 3]], labels=LABELS).split(LABELS, 3).indices
    assert [np.bincount(LABELS[part], minlength=2).tolist() for part in parts] == [[6, 0], [2, 5], [2, 15]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([1.0, 2.0], r"shape \(num_workers, num_classes\), got \(2,\)"),
        ([[1.0, -1.0], [0.0, 1.0]], "non-negative"),
        ([[1.0, float("nan")], [0.0, 1.0]], "finite"),
        ([[1.0, 0.0], [1.0, 0.0]], "nobody class number 1"),
    ],
)
def test_refuses_tables_that_are_no_shares(table: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelShares(table, labels=LABELS)


def test_refuses_a_table_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 2\); got \(2, 2\)"):
        LabelShares([[1, 1], [1, 1]], labels=LABELS).split(LABELS, 3)


def test_refuses_a_worker_without_samples() -> None:
    with pytest.raises(ValueError, match="Worker number 1 of 2 has no samples"):
        LabelShares([[1, 1], [0, 0]], labels=LABELS).split(LABELS, 2)
