"""What a round's result does to the global module: gradients, parameters, buffers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedlightning.algorithms import ServerUpdate
from fedlightning.strategy.round_result import RoundResult


class GlobalModule:
    """Let the global module take over what came of a round, in place.

    Args:
        module: The module. Its tensors are looked up now: callbacks may freeze, add or exchange some.
        server: What the server does with an average.
    """

    def __init__(self, module: nn.Module, server: ServerUpdate) -> None:
        self._module = module
        self._server = server
        self._parameters = list(module.parameters())

    def take_gradients(self, result: RoundResult) -> None:
        """Add averaged gradients to those that are there."""
        for parameter, gradient in zip(self._parameters, result.average, strict=True):
            if not parameter.requires_grad:
                continue
            if parameter.grad is None:
                parameter.grad = gradient
            elif gradient is not None:
                parameter.grad += gradient

    def take_pseudo_gradients(self, result: RoundResult) -> None:
        """Put how far the average has gone where gradients are, for hooks, loggers and server optimizer."""
        self._server.set_pseudo_gradients(self._parameters, _parameters_of(result))

    def take_average(self, result: RoundResult) -> None:
        """Make averaged parameters the module's, or step the server optimizer along them."""
        self._server.apply(self._parameters, _parameters_of(result))

    @torch.no_grad()
    def take_frozen(self, result: RoundResult) -> None:
        """Take over what training steps wrote to parameters without a gradient, such as a teacher."""
        for parameter, mean in zip(self._parameters, result.average, strict=True):
            if not parameter.requires_grad and mean is not None:
                parameter.copy_(mean)

    @torch.no_grad()
    def take_buffers(self, result: RoundResult) -> None:
        """Take the averaged buffers over."""
        for buffer, mean in zip(self._module.buffers(), result.buffers, strict=True):
            buffer.copy_(mean)

    @contextmanager
    def gradients_kept(self, wanted: bool) -> Iterator[None]:
        """Put gradients back after the block: those of a module that steps by hand may wait for others.

        Args:
            wanted: Whether to do so at all.
        """
        waiting = [parameter.grad for parameter in self._parameters] if wanted else []
        yield
        for parameter, gradient in zip(self._parameters, waiting, strict=False):
            parameter.grad = gradient


def _parameters_of(result: RoundResult) -> list[Tensor]:
    """Return averaged parameters, none of which is ever missing, as such to the type checker."""
    return [tensor for tensor in result.average if tensor is not None]
