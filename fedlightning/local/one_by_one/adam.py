"""Steps of Adam and AdamW (Kingma and Ba 2015; Loshchilov and Hutter 2019) by few kernels for all tensors."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.local.lean import Group
from fedlightning.local.one_by_one.group_steps import GroupSteps, are_numbers

_ALIGNED = 64  # bytes: as torch aligns what it allocates


class AdamSteps(GroupSteps):
    """Take steps by the operations of torch's own, in their order.

    Moments lie side by side, so that one operation does for all where no gradient takes part; the divisor of
    a step has memory that stays, too.

    Args:
        tensors: As for `GroupSteps`.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__(tensors)
        self._all_means, self._means = _side_by_side(tensors)
        self._all_squares, self._squares = _side_by_side(tensors)
        self._all_divisors, self._divisors = _side_by_side(tensors)
        # As torch counts.
        wide = torch.get_default_dtype() == torch.float64
        self._counts = torch.zeros(len(tensors), dtype=torch.float64 if wide else torch.float32)
        self._count = 0

    @staticmethod
    @override
    def fits(group: Group) -> bool:
        return not (
            group["amsgrad"] or group["maximize"] or group["foreach"] or group["fused"] or group["capturable"]
        ) and are_numbers(group["lr"], group["weight_decay"], *group["betas"])

    @override
    def begin(self, state: MutableMapping[Tensor, Any]) -> None:
        for numbers in (self._all_means, self._all_squares, self._counts):
            numbers.zero_()
        self._count = 0
        parts = zip(self.tensors, self._counts.unbind(), self._means, self._squares, strict=True)
        for tensor, count, mean, square in parts:
            state[tensor] = {"step": count, "exp_avg": mean, "exp_avg_sq": square}

    @override
    def step(self, gradients: list[Tensor], group: Group) -> None:
        beta1, beta2 = group["betas"]
        self._counts.add_(1)
        self._count += 1
        if group["weight_decay"]:
            gradients = self._decayed(gradients, group)
        torch._foreach_lerp_(self._means, gradients, 1 - beta1)
        self._all_squares.mul_(beta2)
        torch._foreach_addcmul_(self._squares, gradients, gradients, 1 - beta2)
        root = (1 - beta2**self._count) ** 0.5
        torch.sqrt(self._all_squares, out=self._all_divisors)
        self._all_divisors.div_(root).add_(group["eps"])
        size = group["lr"] / (1 - beta1**self._count)
        torch._foreach_addcdiv_(self.tensors, self._means, self._divisors, -size)

    def _decayed(self, gradients: list[Tensor], group: Group) -> list[Tensor]:
        """Decay the parameters, or return gradients that do."""
        decay: float = group["weight_decay"]
        if group["decoupled_weight_decay"]:
            torch._foreach_mul_(self.tensors, 1 - group["lr"] * decay)
            return gradients
        return list(torch._foreach_add(gradients, self.tensors, alpha=decay))


def _side_by_side(tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return room for as many numbers as there are in some tensors, and the part of it that is like each."""
    unit = _ALIGNED // tensors[0].element_size()
    starts = list(accumulate((-(-tensor.numel() // unit) * unit for tensor in tensors), initial=0))
    room = torch.zeros(starts.pop(), dtype=tensors[0].dtype)
    parts = zip(tensors, starts, strict=True)
    return room, [room[start : start + tensor.numel()].view_as(tensor) for tensor, start in parts]
