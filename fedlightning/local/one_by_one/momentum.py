"""Steps of SGD with momentum (Polyak 1964; Sutskever et al. 2013), in one pass over what is in memory."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.local.lean import Group
from fedlightning.local.one_by_one.fused import Momentum, is_even, is_exact, step_at_once, step_by_operations
from fedlightning.local.one_by_one.group_steps import GroupSteps, are_numbers


class MomentumSteps(GroupSteps):
    """Take steps by one kernel for all that is exact, and by the operations of torch's own where it is not.

    Args:
        tensors: As for `GroupSteps`.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__(tensors)
        self._buffers = [torch.empty_like(tensor, requires_grad=False) for tensor in tensors]
        self._even = [number for number, tensor in enumerate(tensors) if is_even(tensor)]
        self._odd = [number for number, tensor in enumerate(tensors) if not is_even(tensor)]
        self._first = True
        self._settings: Momentum | None = None
        self._is_exact = False

    @staticmethod
    @override
    def fits(group: Group) -> bool:
        return (
            group["momentum"] != 0
            and not (group["maximize"] or group["foreach"] or group["fused"])
            and are_numbers(group["lr"], group["weight_decay"])
        )

    @override
    def begin(self, state: MutableMapping[Tensor, Any]) -> None:
        self._first = True
        for tensor, buffer in zip(self.tensors, self._buffers, strict=True):
            state[tensor] = {"momentum_buffer": buffer}

    @override
    def step(self, gradients: list[Tensor], group: Group) -> None:
        first, self._first = self._first, False
        settings = Momentum(group["momentum"], group["dampening"], group["nesterov"], group["weight_decay"])
        if settings != self._settings:
            self._settings, self._is_exact = settings, is_exact(settings)
        lr = group["lr"]
        if not self._is_exact:
            step_by_operations(self.tensors, gradients, self._buffers, settings, lr, first=first)
            return
        for take, numbers in ((step_at_once, self._even), (step_by_operations, self._odd)):
            if numbers:
                tensors, own, buffers = (
                    [some[number] for number in numbers] for some in (self.tensors, gradients, self._buffers)
                )
                take(tensors, own, buffers, settings, lr, first=first)
