"""Earlier versions of the global model, kept as long as somebody is under way who has begun with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Version:
    """The global model before one round, and the settings of the local optimizers then.

    Args:
        parameters: Copies of its parameters.
        buffers: Copies of its buffers.
        settings: What the optimizers' groups were set to.
    """

    parameters: Sequence[Tensor]
    buffers: Sequence[Tensor]
    settings: Any

    @classmethod
    def of(cls, module: nn.Module, settings: Any) -> Version:
        """Return copies of a module's tensors."""
        parameters = [parameter.detach().clone() for parameter in module.parameters()]
        return cls(parameters, [buffer.detach().clone() for buffer in module.buffers()], settings)

    @torch.no_grad()
    def load_into(self, module: nn.Module) -> None:
        """Put the version into a module, in place."""
        tensors = (*module.parameters(), *module.buffers())
        for tensor, kept in zip(tensors, (*self.parameters, *self.buffers), strict=True):
            tensor.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """Return the version as tensors and plain values."""
        return {
            "parameters": list(self.parameters),
            "buffers": list(self.buffers),
            "settings": self.settings,
        }


Versions = Mapping[int, Version]
"""Versions by the number of the round before which they were the global model."""


def versions_from(state: Mapping[int, Mapping[str, Any]], device: torch.device | None) -> Versions:
    """Return the versions that were saved, on the module's device."""

    def moved(tensors: Sequence[Tensor]) -> list[Tensor]:
        return [tensor.to(device) for tensor in tensors]

    return {
        number: Version(moved(kept["parameters"]), moved(kept["buffers"]), kept["settings"])
        for number, kept in state.items()
    }
