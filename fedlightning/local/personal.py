"""A worker's own version of the global module, made before an evaluation there; it stays at the worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from fedlightning.local.memory import WorkerMemory
from fedlightning.local.procedure import LocalModel, LocalProcedure
from fedlightning.local.randomness import own_randomness
from fedlightning.local.streams import Stream
from fedlightning.workers import program


@program(returns="data")
def personalise(
    module: pl.LightningModule, memory: WorkerMemory, stream: Stream, round: int, procedure: LocalProcedure
) -> list[Tensor]:
    """Return the parameters and buffers of what a worker would use; the module comes out as it went in.

    Args:
        module: The global module, sent to this worker.
        memory: What the worker keeps.
        stream: The worker's training batches.
        round: Number of the round that comes next.
        procedure: The algorithm's, which turns one into the other.
    """
    before = _copied(module)
    try:
        with own_randomness(round):
            procedure.personalise(LocalModel(module, memory.own_before(round), stream))
        return _copied(module)
    finally:
        _write(module, before)


@contextmanager
def personal_in_place(module: nn.Module, personal: Sequence[Tensor] | None) -> Iterator[None]:
    """Have a module be a worker's own within the block.

    Args:
        module: The global module, at the worker.
        personal: What `personalise` returned; ``None`` to leave the module as it is.
    """
    if personal is None:
        yield
        return
    before = _copied(module)
    _write(module, personal)
    try:
        yield
    finally:
        _write(module, before)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _copied(module: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in _tensors(module)]


@torch.no_grad()
def _write(module: nn.Module, values: Sequence[Tensor]) -> None:
    for tensor, value in zip(_tensors(module), values, strict=True):
        tensor.copy_(value)
