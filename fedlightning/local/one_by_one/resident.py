"""Steps of SGD with momentum, Adam and AdamW whose state begins anew in each visit, in memory that stays.

How they go is in ``momentum`` and ``adam``. The optimizer's state looks as torch would have left it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from operator import is_

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer
from typing_extensions import override

from fedlightning.local.engine import GradModeOff
from fedlightning.local.lean import Group, LeanOptimization, LeanStep, count_as_step, lean_optimization
from fedlightning.local.logs import LogRecorder
from fedlightning.local.one_by_one.adam import AdamSteps
from fedlightning.local.one_by_one.group_steps import GroupSteps
from fedlightning.local.one_by_one.momentum import MomentumSteps

_STEPS: dict[type[Optimizer], type[GroupSteps]] = {SGD: MomentumSteps, Adam: AdamSteps, AdamW: AdamSteps}


class ResidentStep(LeanStep):
    """Step an optimizer that has no state when a visit begins, by kernels over all of its tensors.

    Where a step is not the ordinary one, the optimizer takes it, and goes on until its state is new again.

    Args:
        module: As for `LeanOptimization`.
        optimizer: As for `LeanOptimization`.
        logs: As for `LeanOptimization`.
    """

    def __init__(self, module: pl.LightningModule, optimizer: Optimizer, logs: LogRecorder) -> None:
        super().__init__(module, optimizer, logs)
        self._kind = _STEPS[type(optimizer)]
        self._trained: list[Tensor] = []
        self._steps: list[GroupSteps | None] = []
        self._lent: list[object] = []

    @override
    def _step(self, trained: list[Tensor]) -> None:
        gradients = _found(trained)
        if gradients is None or not self._is_ready(trained):
            self._lent = []
            super()._step(trained)
            return
        left = iter(gradients)
        with GradModeOff():
            for steps, group in zip(self._steps, self._optimizer.param_groups, strict=True):
                if steps is not None:
                    steps.step(list(islice(left, len(steps.tensors))), group)
        count_as_step(self._optimizer)

    def _is_ready(self, trained: list[Tensor]) -> bool:
        """Tell whether the optimizer's state is in our memory, after it was put there if it is new."""
        optimizer = self._optimizer
        if not all(map(self._kind.fits, optimizer.param_groups)):
            return False
        alike = _are_same(trained, self._trained)
        if optimizer.state:
            # Whoever has exchanged a part of it since wants the optimizer to go on with that.
            return alike and _are_same(_values_in(optimizer), self._lent)
        if not (alike or self._has_made_room(trained)):
            return False
        for steps in self._steps:
            if steps is not None:
                steps.begin(optimizer.state)
        self._lent = _values_in(optimizer)
        return True

    def _has_made_room(self, trained: list[Tensor]) -> bool:
        groups = [_trained_in(group) for group in self._optimizer.param_groups]
        if not all(map(_are_ordinary, groups)):
            return False
        self._trained = trained
        self._steps = [self._kind(tensors) if tensors else None for tensors in groups]
        return True


def resident_optimization(
    module: pl.LightningModule, optimizer: Optimizer, logs: LogRecorder
) -> LeanOptimization:
    """Choose the leanest way to step an optimizer on visits one by one; the bits are those of its own.

    Args:
        module: As for `LeanOptimization`.
        optimizer: As for `LeanOptimization`.
        logs: As for `LeanOptimization`.
    """
    chosen = lean_optimization(module, optimizer, logs)
    if type(chosen) is not LeanStep or type(optimizer) not in _STEPS:
        return chosen
    return ResidentStep(module, optimizer, logs)


def _trained_in(group: Group) -> list[Tensor]:
    return [tensor for tensor in group["params"] if tensor.requires_grad]


def _values_in(optimizer: Optimizer) -> list[object]:
    return [value for own in optimizer.state.values() for value in own.values()]


def _are_same(some: Sequence[object], others: Sequence[object]) -> bool:
    return len(some) == len(others) and all(map(is_, some, others))


def _are_ordinary(tensors: list[Tensor]) -> bool:
    return len({tensor.dtype for tensor in tensors}) < 2 and all(
        tensor.dtype in (torch.float32, torch.float64)
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and tensor.device.type == "cpu"
        for tensor in tensors
    )


def _found(trained: list[Tensor]) -> list[Tensor] | None:
    """Return the gradients of some tensors; ``None`` if one has none, or one that is not dense."""
    gradients = [tensor.grad for tensor in trained]
    found = [one for one in gradients if one is not None and one.layout is torch.strided]
    return found if len(found) == len(gradients) else None
