"""The global module's tensors, kept aside while the module travels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedlightning.local.engine import GradModeOff


class ModuleSnapshot:
    """Copies of a module's parameters and buffers, to start each worker from and to fall back on.

    Read afresh every round: callbacks may freeze, add or exchange parameters between rounds.

    Args:
        module: The module; its tensors are copied.
        trainable: Whether trainable parameters are kept, too, or only what changes without an optimizer.
    """

    def __init__(self, module: nn.Module, *, trainable: bool = True) -> None:
        self._take(module, trainable=trainable)
        self._keep([tensor.detach().clone() for tensor in self._current()])

    def _keep(self, tensors: list[Tensor]) -> None:
        self._tensors = tensors
        self._shapes = [tensor.shape for tensor in tensors]

    def _take(self, module: nn.Module, *, trainable: bool) -> None:
        self._module = module
        self._parameters: list[Tensor] = [
            parameter for parameter in module.parameters() if trainable or not parameter.requires_grad
        ]
        self._names = [name for name, _ in module.named_buffers()]
        self._has_buffers = bool(self._names)

    @classmethod
    def kept_elsewhere(cls, module: nn.Module, tensors: Sequence[Tensor]) -> ModuleSnapshot:
        """Return a snapshot whose copies exist already.

        Args:
            module: The module.
            tensors: What its parameters and buffers are restored to, in order; not copied.
        """
        snapshot = cls.__new__(cls)
        snapshot._take(module, trainable=True)
        snapshot._keep(list(tensors))
        return snapshot

    def restore(self) -> None:
        """Put the copies back into the module, in place, so that optimizers keep their parameters."""
        now = self._current()
        with GradModeOff():
            if not self._fits(now):
                for tensor, kept in zip(now, self._tensors, strict=False):
                    tensor.data = kept.clone()
            elif now:
                torch._foreach_copy_(now, self._tensors)

    def reshaped_buffer(self) -> str:
        """Return the name of a buffer that has got another shape since, or is new; nothing if none has."""
        if not self._has_buffers or self._fits(self._current()):
            return ""
        shapes = dict(zip(self._names, self._tensors[len(self._parameters) :], strict=True))
        return next(
            name
            for name, buffer in self._module.named_buffers()
            if name not in shapes or shapes[name].shape != buffer.shape
        )

    def _fits(self, now: list[Tensor]) -> bool:
        return [tensor.shape for tensor in now] == self._shapes

    def _current(self) -> list[Tensor]:
        # Modules exchange buffers, rather than fill them; parameters stay, for the optimizers' sake.
        return [*self._parameters, *self._module.buffers()] if self._has_buffers else self._parameters
