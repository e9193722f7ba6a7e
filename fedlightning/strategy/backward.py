"""What stands in for the precision plugin for the length of one backward pass.

``Strategy.backward`` is Lightning's own, which others may replace or watch. It calls the precision plugin
three times, and that is where ours comes in. When that happens lives in ``federated``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from lightning.pytorch.plugins.precision import Precision
from torch import Tensor
from typing_extensions import override

Around = Callable[[], AbstractContextManager[None]]


class GuardedBackward(Precision):
    """Do what the precision plugin does, with a guard around each of its parts.

    Args:
        plugin: The precision plugin.
        around: Makes the guard.
    """

    def __init__(self, plugin: Precision, around: Around) -> None:
        super().__init__()
        self._plugin = plugin
        self._around = around

    @override
    def pre_backward(self, tensor: Tensor, module: Any) -> Tensor:
        """Scale the loss, and call the hooks before the backward pass."""
        with self._around():
            return self._plugin.pre_backward(tensor, module)

    @override
    def backward(self, tensor: Tensor, model: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Compute gradients."""
        with self._around():
            self._plugin.backward(tensor, model, optimizer, *args, **kwargs)

    @override
    def post_backward(self, tensor: Tensor, module: Any) -> Tensor:
        """Call the hooks after the backward pass."""
        with self._around():
            return self._plugin.post_backward(tensor, module)


class GradientsTaken(GuardedBackward):
    """Take gradients that were computed elsewhere, between the hooks of an ordinary backward pass.

    Args:
        plugin: The precision plugin.
        around: Makes a guard.
        take: Puts the gradients where they belong.
    """

    def __init__(self, plugin: Precision, around: Around, take: Callable[[], None]) -> None:
        super().__init__(plugin, around)
        self._take = take

    @override
    def backward(self, *args: Any, **kwargs: Any) -> None:
        """Take the gradients."""
        self._take()


class PseudoGradientsTaken(GradientsTaken):
    """Take pseudo-gradients, without hooks, which ran at each local step; arguments as for the base class."""

    @override
    def pre_backward(self, tensor: Tensor, module: Any) -> Tensor:
        """Do nothing."""
        return tensor

    @override
    def post_backward(self, tensor: Tensor, module: Any) -> Tensor:
        """Do nothing more than to return the loss without a graph."""
        return tensor.detach()
