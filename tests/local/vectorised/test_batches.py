"""Batches of several visits side by side: everybody's own, and as many as one as are of the same size."""

from __future__ import annotations

import pytest
import torch

from fedlightning.local.memory import WorkerMemory
from fedlightning.local.vectorised.chunks import Errand, SeparateErrands
from fedlightning.local.visit import Visit
from tests.local.vectorised.toys import streams

# In batches of four: epochs of two, three and two batches, of which one ends with a smaller one.
SIZES = [8, 10, 8]


@pytest.mark.parametrize("first", [0, 1])
def test_whoever_has_had_a_smaller_batch_goes_on_beside_the_others(first: int) -> None:
    data = streams(SIZES)
    errands = SeparateErrands(
        [Errand(stream, WorkerMemory("reset"), Visit(0, first, 7, seed=0)) for stream in data]
    )
    batches = errands.batches(numbered=False, device=torch.device("cpu"))
    alone = [[batch for _, batch in stream.take(first, 7)] for stream in data]
    for step in range(7):
        together = list(batches.of_step(step, len(data)))
        assert len(together) == (3 if (first + step) % 3 == 2 else 1)
        for stacked in together:
            for row in range(stacked.rows.start, stacked.rows.stop):
                own = [tensor[row - stacked.rows.start] for tensor in stacked.tensors]
                torch.testing.assert_close(own, list(alone[row][step]), rtol=0, atol=0)
