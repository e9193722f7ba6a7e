"""What a worker's visit contributes to a round, and the weighted mean of such updates.

How tensors are averaged lives in ``averaging``; where the mean is taken, at the controller or at a trusted
worker, in ``trusted`` and in the strategy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from fedlightning.algorithms.averaging import BufferMean, ParameterMean
from fedlightning.algorithms.repeated_mean import RepeatedMean
from fedlightning.workers.payload import payload_bytes

UpdateKind = Literal["parameters", "gradients"]
"""What of a module is averaged beside its buffers."""

Extras = Mapping[str, Sequence[Tensor]]
"""What an algorithm sends beside an update, by name; the same names and shapes from every worker."""


@dataclass(frozen=True)
class Update:
    """Trained parameters or gradients, and buffers.

    Args:
        tensors: One per parameter of the module, in its order. Of gradients: zeros in place of a missing one,
            and in place of a frozen parameter's, the parameter, to which a training step may have written.
        present: For each, whether it was there: only gradients may be missing.
        buffers: One per buffer.
        extras: What an algorithm sends beside them, by name, such as the change of a control variate.

    Example:
        >>> update = Update.of(nn.Linear(2, 1), "parameters")
        >>> [tuple(tensor.shape) for tensor in update.tensors]
        [(1, 2), (1,)]
    """

    tensors: Sequence[Tensor]
    present: Sequence[bool]
    buffers: Sequence[Tensor]
    extras: Extras = field(default_factory=dict)

    @classmethod
    def of(cls, module: nn.Module, kind: UpdateKind, extras: Extras | None = None) -> Update:
        """Return what a visit has left on a module; tensors are not copied.

        Args:
            module: The module.
            kind: Whether its parameters or their gradients count.
            extras: What goes with them.
        """
        return cls.left_on(list(module.parameters()), list(module.buffers()), kind, extras)

    @classmethod
    def left_on(
        cls,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
        kind: UpdateKind,
        extras: Extras | None = None,
    ) -> Update:
        """Return what a visit has left on a module whose tensors are known.

        Args:
            parameters: All of its parameters.
            buffers: All of its buffers.
            kind: Whether its parameters or their gradients count.
            extras: What goes with them.
        """
        if kind == "parameters":
            left = [parameter.detach() for parameter in parameters]
            return cls(left, [True] * len(parameters), buffers, extras or {})
        found = [
            parameter.grad if parameter.requires_grad else parameter.detach() for parameter in parameters
        ]
        tensors = [
            torch.zeros_like(parameter) if tensor is None else tensor
            for parameter, tensor in zip(parameters, found, strict=True)
        ]
        return cls(tensors, [tensor is not None for tensor in found], buffers, extras or {})

    def copied(self) -> Update:
        """Return an update that shares no memory with the module."""
        return Update(
            [tensor.detach().clone() for tensor in self.tensors],
            list(self.present),
            [buffer.detach().clone() for buffer in self.buffers],
            {name: [t.detach().clone() for t in tensors] for name, tensors in self.extras.items()},
        )


@payload_bytes.register
def _(value: Update) -> int:
    return payload_bytes((list(value.tensors), list(value.buffers), value.extras))


class UpdateMean:
    """Average updates, one at a time, weighted; memory is that of two.

    Updates come in blocks, and what is averaged in the end are the blocks' means. Without blocks, this is the
    running mean of all.

    Args:
        room: Tensors in which that of the first block may be kept, as of `ParameterMean`.

    Example:
        >>> mean = UpdateMean()
        >>> for value, samples in ((1.0, 10), (4.0, 20)):
        ...     mean.add(Update([torch.tensor([value])], present=[True], buffers=[]), weight=samples)
        >>> mean.result().tensors
        [tensor([3.])]
    """

    def __init__(self, room: Sequence[Tensor] = ()) -> None:
        self._whole: _RunningMean | None = None
        # The first is not taken in memory that stays: if it is the only one, it is the result.
        self._part = _RunningMean(ParameterMean(room))
        self._of_blocks = RepeatedMean()
        self._block = 0
        self.count = 0

    def add(self, update: Update, weight: float, block: int = 0) -> None:
        """Take an update into the mean.

        Args:
            update: Like all others in the number, order and shapes of its tensors; not kept.
            weight: As a rule the worker's number of samples; positive.
            block: Number of its block; those of a block come one after the other.
        """
        if block != self._block:
            self.end_block()
        self._block = block
        self._part.add(update, weight)
        self.count += 1

    def add_block(self, mean: Update, weight: float, block: int) -> None:
        """Take the mean of all that is in a block, without a copy.

        Args:
            mean: As for `add`.
            weight: The weight of all that are in it.
            block: Number of the block.
        """
        self.end_block()
        self._whole = _RunningMean(ParameterMean()) if self._whole is None else self._whole
        self._whole.add(mean, weight)
        self._block = block
        self.count += 1

    def result(self) -> Update | None:
        """Return the mean of what was added, or ``None`` where nothing was.

        A gradient is there if any worker had it: without one is not the same as with one of zero, by which
        momentum would move the parameter.
        """
        if self.count == 0:
            return None
        if self._whole is None:
            return self._part.result()
        self.end_block()
        return self._whole.result()

    def end_block(self) -> None:
        """Take the block that was added to last into the mean, of which nothing more will come.

        The next block does so as well; now, what was added is still in the processor's caches.
        """
        if not self._part.weight:
            return
        self._whole = _RunningMean(ParameterMean()) if self._whole is None else self._whole
        self._whole.add(self._part.result(), self._part.weight)
        self._of_blocks.restart()
        self._part = _RunningMean(self._of_blocks)


class _RunningMean:
    """The running mean of updates.

    Args:
        tensors: Takes that of their tensors; nothing was added yet.
    """

    def __init__(self, tensors: ParameterMean) -> None:
        self.weight = 0.0
        self._tensors = tensors
        self._buffers = BufferMean()
        self._extras: defaultdict[str, ParameterMean] = defaultdict(ParameterMean)
        self._present: list[bool] = []

    def add(self, update: Update, weight: float) -> None:
        self._tensors.add(update.tensors, weight)
        if update.buffers:
            self._buffers.add(update.buffers, weight)
        for name, tensors in update.extras.items():
            self._extras[name].add(tensors, weight)
        if not self._present:
            self._present = list(update.present)
        elif self._present != update.present:
            pairs = zip(self._present, update.present, strict=True)
            self._present = [there or here for there, here in pairs]
        self.weight += weight

    def result(self) -> Update:
        extras = {name: mean.result() for name, mean in self._extras.items()}
        return Update(self._tensors.result(), list(self._present), self._buffers.result(), extras)
