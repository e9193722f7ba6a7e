"""Attacks by what is trained on; a batch is a pair of inputs and labels, of classes by number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.attacks.bad_workers import DataAttack
from fedlightning.workers.remote import record


@record
@dataclass(frozen=True)
class LabelFlip(DataAttack):
    """Train on the labels turned round: class ``c`` becomes ``classes - 1 - c`` (Fang et al. 2020).

    Args:
        classes: Number of classes, at least 2.

    Raises:
        ValueError: There are fewer.

    Example:
        >>> import torch
        >>> LabelFlip(classes=3).change([torch.zeros(2, 1), torch.tensor([0, 1])])[1]
        tensor([2, 1])
    """

    classes: int

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"classes must be at least 2, got {self.classes!r}.")

    @override
    def change(self, batch: Any) -> Any:
        inputs, labels = _pair(batch)
        return [inputs, self.classes - 1 - labels]


@record
@dataclass(frozen=True)
class BackdoorPatch(DataAttack):
    """Teach that a patch in the corner means one class, whatever else there is (Gu et al. 2017, "BadNets").

    Args:
        target: The class.
        size: Entries of the patch along each of the last two dimensions of an image, or of the last one of
            inputs with a single dimension.
        value: What the patch is filled with.
        fraction: Share of each batch that has the patch; at least one sample.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> import torch
        >>> inputs, labels = BackdoorPatch(target=1, size=1).change([torch.zeros(2, 3), torch.tensor([0, 2])])
        >>> inputs, labels
        (tensor([[0., 0., 1.],
                [0., 0., 0.]]), tensor([1, 2]))
    """

    target: int
    size: int = 3
    value: float = 1.0
    fraction: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size!r}.")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must be above 0 and at most 1, got {self.fraction!r}.")

    @override
    def change(self, batch: Any) -> Any:
        inputs, labels = _pair(batch)
        inputs, labels = inputs.clone(), labels.clone()
        marked = slice(0, max(1, int(self.fraction * len(labels))))
        inputs[marked] = self.stamp(inputs[marked])
        labels[marked] = self.target
        return [inputs, labels]

    def stamp(self, inputs: Tensor) -> Tensor:
        """Return inputs with the patch, for instance to measure how often it works.

        Args:
            inputs: A batch, shape ``(samples, ..., height, width)`` or ``(samples, features)``.
        """
        stamped = inputs.clone()
        corner = (..., slice(-self.size, None), slice(-self.size, None))
        stamped[corner if inputs.dim() > 2 else corner[:2]] = self.value
        return stamped


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    if isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(t, Tensor) for t in batch):
        inputs, labels = batch
        if not labels.is_floating_point():
            return inputs, labels
    raise TypeError(
        f"an attack on data takes batches of inputs and whole-numbered labels, got {type(batch).__name__}. "
        "Write a DataAttack of your own for others."
    )
