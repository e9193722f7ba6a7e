"""What parts of a cohort report comes to the same in whatever order, and of whatever type, it arrives."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from fedlightning.local.vectorised.reports import ChunkReports
from fedlightning.strategy.cohort import CohortReports, Terms

NONE = [], torch.empty(0)  # of a process that was left no visit
SKIPPED = [1], torch.tensor([torch.nan])
HALVES = [0], torch.tensor([1.0], dtype=torch.bfloat16)
DOUBLES = [2, 3], torch.tensor([1 / 3, 3.0], dtype=torch.float64)


@pytest.mark.parametrize("parts", [*permutations([NONE, SKIPPED, HALVES, DOUBLES])])
def test_losses_keep_the_type_in_which_they_were_computed(
    parts: list[tuple[list[int], torch.Tensor]],
) -> None:
    reports = CohortReports(Terms(0, ("a", "b", "c", "d"), np.ones(4, dtype=np.int64), np.ones(4)))
    for numbers, losses in parts:
        ones = np.ones(len(numbers), dtype=np.int64)
        chunk = ChunkReports(ones, losses, ones, ones.astype(bool), [], ~losses.float().isnan().numpy())
        reports.take(np.array(numbers, dtype=np.int64), chunk)
    nothing = np.zeros(4, dtype=np.int64)
    assert [visit.loss for visit in reports.visits(nothing, nothing)] == [1.0, None, 1 / 3, 3.0]
    assert reports.loss is not None
    assert reports.loss.dtype == torch.float64
    assert reports.done == 4
