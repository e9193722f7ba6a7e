"""Majority vote over signs (Bernstein et al. 2018, "signSGD with majority vote", Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.numbers import require_at_least
from fedlightning.algorithms.robust import AggregationRule


@dataclass(frozen=True)
class MajorityVote(AggregationRule):
    """Move every parameter by one step, in the direction that most workers have gone; weights do not count.

    With `Sign` as postprocessor, each worker sends one bit per parameter. A tie moves nothing.

    Args:
        step: How far, above 0.

    Raises:
        ValueError: ``step`` is not above 0.

    Example:
        >>> MajorityVote(step=0.1).combine(
        ...     torch.tensor([[0.5], [0.2], [-9.0]]), torch.ones(3), torch.zeros(1)
        ... )
        tensor([0.1000])
    """

    step: float = 0.001

    def __post_init__(self) -> None:
        require_at_least("step", self.step, 0)
        if self.step == 0:
            raise ValueError("step must be above 0, got 0: nothing would ever move.")

    @override
    def combine(self, updates: Tensor, weights: Tensor, start: Tensor) -> Tensor:
        return start + self.step * torch.sign(torch.sign(updates - start).sum(dim=0))
