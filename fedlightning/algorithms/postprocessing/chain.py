"""A chain of postprocessors, with error feedback, and what it makes of an update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedlightning.algorithms.postprocessing.base import Keeper, Postprocessor, Shapes
from fedlightning.workers.remote import record

Encoded = Mapping[str, list[Tensor]]
"""What is sent of an update: ``payload``, and ``along 0`` and so on, what each postprocessor sends along."""


@record
@dataclass(frozen=True)
class Postprocessing:
    """Apply postprocessors at the worker, one after the other, and undo them in reverse.

    With error feedback a worker keeps what its update has lost on the way, and adds it to the next one
    (Seide et al. 2014; Karimireddy et al. 2019, "Error Feedback Fixes SignSGD").

    Args:
        steps: The postprocessors, in the order in which they are applied.
        error_feedback: Whether what is lost is made up for in the next visit.

    Raises:
        TypeError: A step is no postprocessor.

    Example:
        >>> from fedlightning.algorithms.postprocessing import Memo, Quantize, TopK
        >>> chain = Postprocessing([TopK(fraction=0.25), Quantize(bits=8)])
        >>> sent = chain.encode([torch.tensor([[1.0, 2.0], [-9.0, 4.0]])], Memo())
        >>> chain.decode(sent, [(2, 2)])
        [tensor([[ 0.,  0.],
                [-9.,  0.]])]
    """

    steps: Sequence[Postprocessor]
    error_feedback: bool = False

    def __post_init__(self) -> None:
        for step in self.steps:
            if not isinstance(step, Postprocessor):
                raise TypeError(f"steps must be postprocessors such as TopK(fraction=0.01), got {step!r}.")
        object.__setattr__(self, "steps", tuple(self.steps))

    @torch.no_grad()
    def encode(self, update: Sequence[Tensor], keeper: Keeper) -> dict[str, list[Tensor]]:
        """Return what is sent of an update.

        Args:
            update: The way that each trained parameter has gone.
            keeper: Keeps things at the worker.
        """
        whole = [tensor.detach() for tensor in update]
        if self.error_feedback and (lost := keeper.kept("lost")) is not None:
            whole = [tensor + missing for tensor, missing in zip(whole, lost, strict=True)]
        tensors, sent = whole, {}
        for number, step in enumerate(self.steps):
            tensors, sent[_along(number)] = step.apply(tensors, keeper)
        sent["payload"] = tensors
        if self.error_feedback:
            arrived = self.decode(sent, [tuple(tensor.shape) for tensor in whole])
            keeper.keep("lost", [tensor - other for tensor, other in zip(whole, arrived, strict=True)])
        return sent

    @torch.no_grad()
    def decode(self, sent: Encoded, shapes: Shapes) -> list[Tensor]:
        """Return the update as far as it can be told from what was sent.

        Args:
            sent: What `encode` returned.
            shapes: Shapes of the trained parameters.
        """
        given = [shapes]
        for step in self.steps:
            given.append(step.shapes(given[-1]))
        tensors = list(sent["payload"])
        for number in reversed(range(len(self.steps))):
            tensors = self.steps[number].undo(tensors, list(sent[_along(number)]), given[number])
        return tensors


def _along(number: int) -> str:
    return f"along {number}"
