"""What a worker's visit contributes to a round, and the weighted mean of such updates.

How tensors are averaged lives in ``averaging``; where the mean is taken, at the controller or at a trusted
worker, in ``trusted`` and in the strategy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fedlightning.algorithms.averaging import BufferMean, ParameterMean
from fedlightning.workers.payload import payload_bytes

UpdateKind = Literal["parameters", "gradients"]
"""What of a module is averaged beside its buffers."""


@dataclass(frozen=True)
class Update:
    """Trained parameters or gradients, and buffers.

    Args:
        tensors: One per parameter of the module, in its order. Of gradients: zeros in place of a missing one,
            and in place of a frozen parameter's, the parameter, to which a training step may have written.
        present: For each, whether it was there: only gradients may be missing.
        buffers: One per buffer.

    Example:
        >>> update = Update.of(nn.Linear(2, 1), "parameters")
        >>> [tuple(tensor.shape) for tensor in update.tensors]
        [(1, 2), (1,)]
    """

    tensors: Sequence[Tensor]
    present: Sequence[bool]
    buffers: Sequence[Tensor]

    @classmethod
    def of(cls, module: nn.Module, kind: UpdateKind) -> Update:
        """Return what a visit has left on a module; tensors are not copied.

        Args:
            module: The module.
            kind: Whether its parameters or their gradients count.
        """
        return cls.left_on(list(module.parameters()), list(module.buffers()), kind)

    @classmethod
    def left_on(cls, parameters: Sequence[Tensor], buffers: Sequence[Tensor], kind: UpdateKind) -> Update:
        """Return what a visit has left on a module whose tensors are known.

        Args:
            parameters: All of its parameters.
            buffers: All of its buffers.
            kind: Whether its parameters or their gradients count.
        """
        if kind == "parameters":
            return cls([parameter.detach() for parameter in parameters], [True] * len(parameters), buffers)
        left = [parameter.grad if parameter.requires_grad else parameter.detach() for parameter in parameters]
        tensors = [
            torch.zeros_like(parameter) if tensor is None else tensor
            for parameter, tensor in zip(parameters, left, strict=True)
        ]
        return cls(tensors, [tensor is not None for tensor in left], buffers)

    def copied(self) -> Update:
        """Return an update that shares no memory with the module."""
        return Update(
            [tensor.detach().clone() for tensor in self.tensors],
            list(self.present),
            [buffer.detach().clone() for buffer in self.buffers],
        )


@payload_bytes.register
def _(value: Update) -> int:
    return payload_bytes((list(value.tensors), list(value.buffers)))


class UpdateMean:
    """Average updates, one at a time, weighted; memory is that of one.

    Example:
        >>> mean = UpdateMean()
        >>> for value, samples in ((1.0, 10), (4.0, 20)):
        ...     mean.add(Update([torch.tensor([value])], present=[True], buffers=[]), weight=samples)
        >>> mean.result().tensors
        [tensor([3.])]
    """

    def __init__(self) -> None:
        self._tensors = ParameterMean()
        self._buffers = BufferMean()
        self._present: list[bool] = []
        self.count = 0

    def add(self, update: Update, weight: float) -> None:
        """Take an update into the mean.

        Args:
            update: Like all others in the number, order and shapes of its tensors; not kept.
            weight: As a rule the worker's number of samples; positive.
        """
        self._tensors.add(update.tensors, weight)
        self._buffers.add(update.buffers, weight)
        before = self._present or [False] * len(update.present)
        self._present = [there or here for there, here in zip(before, update.present, strict=True)]
        self.count += 1

    def result(self) -> Update | None:
        """Return the mean of what was added, or ``None`` where nothing was.

        A gradient is there if any worker had it: without one is not the same as with one of zero, by which
        momentum would move the parameter.
        """
        if self.count == 0:
            return None
        return Update(self._tensors.result(), list(self._present), self._buffers.result())
