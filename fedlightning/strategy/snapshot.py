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
        self._trainable = trainable
        self._tensors = [tensor.detach().clone() for tensor in self._current()]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the copies back into the module, in place, so that optimizers keep their parameters."""
        now = self._current()
        if now:
            torch._foreach_copy_(now, self._tensors)

    def _current(self) -> list[Tensor]:
        parameters = self._module.parameters()
        kept = [parameter for parameter in parameters if self._trainable or not parameter.requires_grad]
        return [*kept, *self._module.buffers()]
