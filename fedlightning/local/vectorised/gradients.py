"""What a batched step has computed; gradients of linear maps are left as factors, whose product they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """A part of a weight's gradient: ``outer^T inputs``.

    Args:
        weight: Which of the parameters it is.
        inputs: What a linear map has taken, shape ``(workers, n, in)``.
        outer: The gradient of what it has given, shape ``(workers, n, out)``.
    """

    weight: int
    inputs: Tensor
    outer: Tensor


class Gradients:
    """What a batched step has computed.

    Args:
        losses: Shape ``(workers,)``, without a graph.
        whole: For each trained parameter its gradient, shape ``(workers, ...)``, as far as it is known as a
            whole.
        factors: For each use of a weight in a linear map its part in that weight's gradient.
        logged: What was logged and counted, as `ChunkLogs.keep` takes it.
    """

    def __init__(
        self,
        losses: Tensor,
        whole: Sequence[Tensor | None],
        factors: Sequence[Factors],
        logged: Sequence[Tensor],
    ) -> None:
        self.losses = losses
        self.whole = whole
        self.factors = factors
        self.logged = logged

    @cached_property
    def known(self) -> list[int]:
        """Which of the parameters have a gradient."""
        by_factors = {factors.weight for factors in self.factors}
        return [p for p, gradient in enumerate(self.whole) if gradient is not None or p in by_factors]

    def add_to(self, place: Tensor, position: int, workers: slice, *, kept: float, share: float) -> None:
        """Let ``place`` become ``kept`` times itself and ``share`` times the gradient of some workers.

        Args:
            place: Shape ``(workers, ...)``; not looked at where nothing of it is kept.
            position: Which of the parameters.
            workers: Which of the workers.
            kept: The factor of what is there.
            share: The factor of the gradient.
        """
        for factors in self.factors:
            if factors.weight == position:
                outer, inputs = factors.outer[workers], factors.inputs[workers]
                place.baddbmm_(outer.transpose(1, 2), inputs, beta=kept, alpha=share)
                kept = 1.0
        gradient = self.whole[position]
        if gradient is None:
            return
        if kept == 0:
            torch.mul(gradient[workers], share, out=place)
        else:
            place.mul_(kept).add_(gradient[workers], alpha=share)

    def in_full(self) -> Gradients:
        """Return the same with every gradient known as a whole."""
        every = list(self.whole)
        for factors in self.factors:
            gradient = torch.bmm(factors.outer.transpose(1, 2), factors.inputs)
            known = every[factors.weight]
            every[factors.weight] = gradient if known is None else known + gradient
        return Gradients(self.losses, every, [], self.logged)
