from __future__ import annotations

import pytest

from fedlightning.data.partition import Explicit


def test_lists_are_taken_as_they_are_but_sorted() -> None:
    partition = Explicit([[3, 0], [2, 1]]).split(range(4), 2)
    assert partition.worker_names is None
    assert [part.tolist() for part in partition.indices] == [[0, 3], [1, 2]]


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([[0, 1], [1, 2, 3]], "Sample 1 occurs 2 times"),
        ([[0, 1], [3]], r"1 of 4 samples \(the first is 2\) lie at no worker"),
        ([[0, 1], [2, 3, 4]], r"must lie in \[0, 4\), got 0 to 4"),
        ([[0, 1, 2, -1], [3]], r"must lie in \[0, 4\), got -1 to 3"),
        ([[0, 1, 2, 3], []], "Worker number 1 of 2 has no samples"),
        ([[0, 1, 2], [3.0]], "integers"),
        ([[0, 1, 2, 3]], "num_workers=2, but indices lists the samples of 1 workers"),
    ],
)
def test_refuses_what_is_no_partition(indices: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Explicit(indices).split(range(4), 2)


def test_refuses_no_lists() -> None:
    with pytest.raises(ValueError, match="indices is empty"):
        Explicit([])
