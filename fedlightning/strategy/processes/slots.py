"""Where a process puts the means of pieces, for the controller to take up. Pieces are made in `division`."""

from __future__ import annotations

import torch
from torch import Tensor

from fedlightning.algorithms import UpdateMean
from fedlightning.strategy.processes.messages import Mean
from fedlightning.strategy.processes.shared_memory import Layout


class Slots:
    """Hold room for some means in memory that the controller sees.

    Args:
        layout: Of the module.
        memory: Of so many modules, of which the first is what visits start with.
        count: How many means.

    Attributes:
        start: What visits start with.
    """

    def __init__(self, layout: Layout, memory: Tensor, count: int) -> None:
        self.start, *self._slots = (layout.within(memory, number) for number in range(1 + count))
        self._parameters = layout.parameters

    def open(self, slot: int) -> UpdateMean:
        """Return an empty mean, which is taken in a slot as far as it can be.

        Args:
            slot: Its number.
        """
        return UpdateMean(self._slots[slot][: self._parameters])

    @torch.no_grad()
    def put_down(self, mean: UpdateMean, weight: float, slot: int) -> Mean:
        """Put a mean into a slot, and return what the controller is told of it.

        Args:
            mean: The mean, which is not added to any more.
            weight: The weight of all that are in it.
            slot: Number of the slot in which it was opened.
        """
        result = mean.result()
        if result is None:
            return Mean(0, 0.0)
        for there, tensor in zip(self._slots[slot], (*result.tensors, *result.buffers), strict=False):
            if tensor is not there:
                there.copy_(tensor)
        return Mean(mean.count, weight, result.extras)
