"""What `resident` asks of the steps of one kind of optimizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import MutableMapping
from typing import Any

from torch import Tensor

from fedlightning.local.lean import Group


class GroupSteps(ABC):
    """Take the steps of a group of parameters, and keep the memory of their state.

    Args:
        tensors: The parameters that are trained, at least one: on the CPU, contiguous, all in
            float32 or all in float64.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = tensors

    @staticmethod
    @abstractmethod
    def fits(group: Group) -> bool:
        """Tell whether steps are taken by a group's settings as they are now.

        Args:
            group: Parameters and settings.
        """

    @abstractmethod
    def begin(self, state: MutableMapping[Tensor, Any]) -> None:
        """Put into an optimizer's state what its first step would, as it is before that.

        Args:
            state: Has nothing yet.
        """

    @abstractmethod
    def step(self, gradients: list[Tensor], group: Group) -> None:
        """Take a step, to the bits of the optimizer's own.

        Args:
            gradients: One per parameter, laid out like it; not written to.
            group: Parameters and settings.
        """


def are_numbers(*values: object) -> bool:
    """Tell whether settings are numbers of Python's, rather than tensors.

    Args:
        values: Of a group of parameters.
    """
    return all(type(value) in (float, int) for value in values)
