"""The global module's tensors, kept aside while the module travels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ModuleSnapshot:
    """Copies of a module's parameters and buffers, to start each worker from and to fall back on.

    Read afresh every round: callbacks may freeze, add or exchange parameters between rounds.

    Args:
        module: The module; its tensors are copied.
        parameters: Whether parameters are kept, too, or buffers only.
    """

    def __init__(self, module: nn.Module, *, parameters: bool = True) -> None:
        self._module = module
        self._parameters = parameters
        self._tensors = [tensor.detach().clone() for tensor in self._current()]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the copies back into the module, in place, so that optimizers keep their parameters."""
        now = self._current()
        if now:
            torch._foreach_copy_(now, self._tensors)

    def _current(self) -> list[Tensor]:
        parameters = list(self._module.parameters()) if self._parameters else []
        return [*parameters, *self._module.buffers()]
