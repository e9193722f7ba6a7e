"""A visit after which a processed update goes up in place of the module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from typing_extensions import override

from fedlightning.algorithms.postprocessing.chain import Postprocessing
from fedlightning.local.procedure import LocalProcedure, LocalTraining
from fedlightning.local.wrapping import WrappedProcedure
from fedlightning.workers.remote import record

SENT = "update/"
"""Begins the names of what goes up in place of the module."""


@record
@dataclass(frozen=True)
class ProcessedTraining(WrappedProcedure):
    """Train, and send what a chain of postprocessors makes of the update.

    Args:
        chain: The postprocessors.
        procedure: What is done before; ``None`` to train, and nothing else.
    """

    chain: Postprocessing
    procedure: LocalProcedure | None

    sends: ClassVar[bool] = True

    @override
    def run(self, local: LocalTraining) -> None:
        start = local.copy_parameters()
        self.carry_out(local)
        self._send(local, start)

    @torch.no_grad()
    def _send(self, local: LocalTraining, start: list[torch.Tensor]) -> None:
        trained = local.trained
        update = [local.parameters[position] - start[position] for position in trained]
        for name, tensors in self.chain.encode(update, local).items():
            local.sent[SENT + name] = tensors
        local.sent[SENT + "buffers"] = [buffer.detach().clone() for buffer in local.module.buffers()]
        # Training steps may have written to a frozen one, such as a teacher.
        others = set(range(len(start))) - set(trained)
        written = [p for p in sorted(others) if not torch.equal(local.parameters[p], start[p])]
        local.sent[SENT + "positions"] = [torch.tensor(written, dtype=torch.int32)]
        local.sent[SENT + "written"] = [local.parameters[position].detach().clone() for position in written]
