"""Inputs as a worker's own instruments see them: with noise, or turned. What is changed, not at whom.

Which worker has which change is for `fedlightning.data.partition` to say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, radians, sin, sqrt
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, Subset, TensorDataset
from typing_extensions import override

from fedlightning.data.map_style import MapStyle
from fedlightning.workers.random import derive_seed

Where = int | str
"""Where a sample's inputs are: their position in a tuple, or their key in a mapping."""


class InputChange(ABC):
    """Change the inputs of a sample, always in the same way."""

    @abstractmethod
    def __call__(self, inputs: Tensor, number: int) -> Tensor:
        """Return changed inputs.

        Args:
            inputs: One sample's inputs, floating point, any shape; not written to.
            number: Number of the sample in the whole dataset.
        """


@dataclass(frozen=True)
class Noise(InputChange):
    """Add Gaussian noise of mean 0, which belongs to the sample: it is the same in each epoch.

    Args:
        variance: Of the noise, non-negative.
        seed: Seed of the noise of all samples.
    """

    variance: float
    seed: int

    @override
    def __call__(self, inputs: Tensor, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "noise", number))
        noise = torch.randn(inputs.shape, generator=generator, dtype=inputs.dtype)
        return inputs + sqrt(self.variance) * noise.to(inputs.device)


@dataclass(frozen=True)
class Rotation(InputChange):
    """Turn images around their centre; what comes from outside is 0, and the shape stays.

    Args:
        degrees: Counter-clockwise.
    """

    degrees: float

    @override
    def __call__(self, inputs: Tensor, number: int) -> Tensor:
        if inputs.dim() < 2:
            raise ValueError(
                f"inputs of shape {tuple(inputs.shape)} are no images, and cannot be turned: the last two "
                "dimensions must be height and width."
            )
        return rotate(inputs, self.degrees)


@dataclass(frozen=True)
class InTurn(InputChange):
    """Make several changes, one after the other.

    Args:
        changes: The changes.
    """

    changes: tuple[InputChange, ...]

    @override
    def __call__(self, inputs: Tensor, number: int) -> Tensor:
        for change in self.changes:
            inputs = change(inputs, number)
        return inputs


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Turn images around their centre: exactly by quarter turns, and by linear interpolation otherwise.

    Args:
        images: Shape ``(..., H, W)``, floating point.
        degrees: Counter-clockwise.

    Returns:
        The same shape.

    Example:
        >>> rotate(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), 90)
        tensor([[1., 3.],
                [0., 2.]])
    """
    height, width = images.shape[-2:]
    quarters, rest = divmod(degrees % 360, 90)
    if rest == 0 and (height == width or quarters % 2 == 0):
        return torch.rot90(images, int(quarters), dims=(-2, -1))
    c, s = cos(radians(degrees)), sin(radians(degrees))
    # Each output point is looked up where it was before, in coordinates from -1 to 1 in both dimensions.
    back = images.new_tensor([[c, -s * height / width, 0.0], [s * width / height, c, 0.0]])
    planes = images.reshape(1, -1, height, width)
    grid = functional.affine_grid(back[None], list(planes.shape), align_corners=False)
    return functional.grid_sample(planes, grid, align_corners=False).reshape(images.shape)


class ChangedInputs(Subset[Any]):
    """Samples of a dataset whose inputs are changed when they are read.

    Args:
        dataset: The whole dataset; not copied.
        indices: Numbers of the samples.
        change: What is done to their inputs.
        where: Where in a sample the inputs are.
    """

    def __init__(
        self, dataset: Dataset[Any], indices: Sequence[int], change: InputChange, where: Where
    ) -> None:
        super().__init__(dataset, indices)
        self.change = change
        self.where = where

    @override
    def __getitem__(self, position: Any) -> Any:
        number = self.indices[position]
        return self._changed(self.dataset[number], number)

    @override
    def __getitems__(self, indices: list[int]) -> list[Any]:
        numbers = [self.indices[position] for position in indices]
        return list(map(self._changed, super().__getitems__(indices), numbers))

    def _changed(self, sample: Any, number: int) -> Any:
        if isinstance(sample, Tensor):
            return self._apply(sample, number)
        try:
            inputs = sample[self.where]
        except (LookupError, TypeError) as error:
            raise TypeError(
                f"inputs={self.where!r} were not found in a sample of type {type(sample).__name__}. Give the "
                "position of the inputs in it, or their key."
            ) from error
        changed = self._apply(inputs, number)
        if isinstance(sample, Mapping):
            return {**sample, self.where: changed}
        parts = list(sample)
        parts[cast("int", self.where)] = changed
        return parts if isinstance(sample, list) else tuple(parts)

    def _apply(self, inputs: Any, number: int) -> Tensor:
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            kind = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
            raise TypeError(
                f"inputs={self.where!r} of sample {number} are {kind}, and only floating-point tensors can "
                "be changed. Let the dataset return such tensors, for instance by its own transform."
            )
        return self.change(inputs, number)


def with_changed_inputs(
    dataset: MapStyle, indices: Sequence[int], change: InputChange, where: Where = 0
) -> MapStyle:
    """Return some samples of a dataset with changed inputs.

    Args:
        dataset: The whole dataset.
        indices: Numbers of the samples.
        change: What is done to their inputs.
        where: Where in a sample the inputs are.

    Returns:
        For a `TensorDataset` another one, changed once for all; otherwise one that changes what is read.
    """
    changed = ChangedInputs(cast("Dataset[Any]", dataset), indices, change, where)
    if type(dataset) is not TensorDataset:
        return changed
    samples = changed.__getitems__(list(range(len(changed))))
    return TensorDataset(*map(torch.stack, zip(*samples, strict=True)))
