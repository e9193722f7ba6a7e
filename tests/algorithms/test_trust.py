"""FLTrust's rule alone: what its scores and lengths are."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedlightning.algorithms import FLTrust
from fedlightning.algorithms.trust import trust_scores

vectors = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=3, max_size=3)


def combined(root: list[float], *workers: list[float], start: list[float] | None = None) -> Tensor:
    begin = torch.zeros(3, dtype=torch.float64) if start is None else torch.tensor(start, dtype=torch.float64)
    rows = torch.tensor([root, *workers], dtype=torch.float64) + begin
    return FLTrust().combine(rows, torch.ones(len(rows)), begin) - begin


@given(vectors, st.lists(vectors, min_size=1, max_size=5))
def test_nobody_carries_the_model_further_than_the_server_went(
    root: list[float], workers: list[list[float]]
) -> None:
    assert (
        combined(root, *workers).norm() <= torch.tensor(root, dtype=torch.float64).norm() * (1 + 1e-9) + 1e-9
    )


@given(vectors.filter(any), st.floats(0.01, 100))
def test_who_goes_the_server_s_way_counts_by_direction_alone(root: list[float], scale: float) -> None:
    went = combined(root, [scale * x for x in root])
    torch.testing.assert_close(went, torch.tensor(root, dtype=torch.float64))


def test_where_all_start_from_is_no_matter() -> None:
    root, workers = [1.0, 2.0, 3.0], ([2.0, 1.0, 0.0], [-1.0, 0.0, 5.0])
    there = combined(root, *workers, start=[10.0, -20.0, 30.0])
    torch.testing.assert_close(there, combined(root, *workers))


def test_scores() -> None:
    steps = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [-1.0, 0.0], [0.0, 0.0]])
    scores = trust_scores(steps, torch.tensor([3.0, 0.0]))
    torch.testing.assert_close(scores, torch.tensor([1.0, 0.5**0.5, 0.0, 0.0, 0.0]))


def test_nobody_trusted_changes_nothing() -> None:
    assert combined([1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]).tolist() == [0.0, 0.0, 0.0]
