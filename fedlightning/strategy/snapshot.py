"""The global module's tensors, kept aside while the module travels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ModuleSnapshot:
    """Copies of a module's parameters and buffers, to start each worker from and to fall back on.

    Read afresh every round: callbacks may freeze, add or exchange parameters between rounds.

    Args:
        module: The module; its tensors are copied.
        trainable: Whether trainable parameters are kept, too, or only what changes without an optimizer.
    """

    def __init__(self, module: nn.Module, *, trainable: bool = True) -> None:
        self._module = module
        self._parameters: list[Tensor] = [
            parameter for parameter in module.parameters() if trainable or not parameter.requires_grad
        ]
        self._has_buffers = next(module.buffers(), None) is not None
        self._tensors = [tensor.detach().clone() for tensor in self._current()]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the copies back into the module, in place, so that optimizers keep their parameters."""
        now = self._current()
        if now:
            torch._foreach_copy_(now, self._tensors)

    def _current(self) -> list[Tensor]:
        # Modules exchange buffers, rather than fill them; parameters stay, for the optimizers' sake.
        return [*self._parameters, *self._module.buffers()] if self._has_buffers else self._parameters
