"""One local step of several workers at once: an unmodified ``training_step`` under vmap, and its gradients.

Each worker's loss depends on its own parameters alone, so that the gradients of the sum of all losses are
everybody's own. They are taken outside of vmap, by one ordinary backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_unflatten

from fedlightning.local.stepping import loss_of
from fedlightning.local.vectorised.gradients import Factors, Gradients
from fedlightning.local.vectorised.logs import ChunkLogs
from fedlightning.local.vectorised.operators import WorkerOperators
from fedlightning.local.vectorised.randomness import DividedDraws, LoneDraws
from fedlightning.local.vectorised.refusal import NotBatchable
from fedlightning.local.vectorised.stack import Places
from fedlightning.local.vectorised.stacked_batch import StackedBatch


class BatchedStep:
    """Compute losses and gradients of several workers, each with parameters and a batch of its own.

    Args:
        module: The module.
        places: Where its parameters and buffers are.
        logs: Stands in for its ``log`` and its torchmetrics.
        passes_batch_idx: Whether ``training_step`` takes a ``batch_idx``.
    """

    def __init__(
        self, module: pl.LightningModule, places: Places, logs: ChunkLogs, *, passes_batch_idx: bool
    ) -> None:
        self._module = module
        self._places = places
        self._logs = logs
        self._passes_batch_idx = passes_batch_idx

    def gradients(
        self,
        batch: StackedBatch,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
        draws: DividedDraws | LoneDraws | None,
    ) -> Gradients:
        """Take a step up to the gradients; buffers change in place, and what is logged is kept.

        Args:
            batch: The workers' batches.
            parameters: What they train, each of shape ``(workers, ...)``.
            buffers: Their buffers, likewise.
            draws: Divides random numbers over the workers; ``None`` where the module draws none.

        Raises:
            NotBatchable: The module does something that has no meaning for several workers at once. Torch
                raises errors of its own for much of it.
        """
        leaves = [parameter.detach().requires_grad_() for parameter in parameters]
        tensors, structure = batch.tensors, batch.structure
        operators = WorkerOperators(leaves)

        def of_one(own: list[Tensor], own_buffers: list[Tensor], own_batch: list[Tensor]) -> Any:
            with self._places.filled(own, own_buffers):
                loss = self._loss(tree_unflatten(own_batch, structure), batch.batch_idx)
                return loss, self._logs.take(), self._places.current_buffers(len(own_buffers))

        randomness: AbstractContextManager[Any] = nullcontext() if draws is None else draws
        self._logs.start_step(tree_unflatten([tensor[0] for tensor in tensors], structure))
        with torch.enable_grad(), randomness, operators:
            of_all = vmap(of_one, randomness="error" if draws is None else "different")
            losses, logged, left = of_all(leaves, list(buffers), tensors)
            kept, *logged = apart([losses.detach(), *logged], (*parameters, *buffers))
            self._logs.keep(batch.rows, logged)
        outputs = [product.outputs for product in operators.products]
        every = torch.ones_like(losses)
        found = torch.autograd.grad(losses, [*leaves, *outputs], every, allow_unused=True)
        for buffer, after in zip(buffers, left, strict=True):
            take_over(buffer, after)
        whole, outer = found[: len(leaves)], found[len(leaves) :]
        factors = [
            Factors(product.weight, product.inputs, own)
            for product, own in zip(operators.products, outer, strict=True)
            if own is not None
        ]
        return Gradients(kept, whole, factors, logged)

    def _loss(self, batch: Any, batch_idx: int) -> Tensor:
        module, numbers = self._module, (batch_idx,) if self._passes_batch_idx else ()
        with self._logs.noting():
            output = module.training_step(batch, *numbers)
        loss = loss_of(output, required=True)
        if loss is None:
            raise NotBatchable("training_step skips a step")
        return loss.reshape(())


def apart(values: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
    """Copy those of some values that lie in memory to which steps write.

    Args:
        values: The values.
        places: That memory.
    """
    written = {place.untyped_storage().data_ptr() for place in places}
    return [v.clone() if v.untyped_storage().data_ptr() in written else v for v in values]


@torch.no_grad()
def take_over(buffer: Tensor, after: Tensor) -> None:
    """Let a buffer have the value that a step has left in its place.

    Args:
        buffer: The buffer.
        after: The value.

    Raises:
        NotBatchable: It does not fit.
    """
    if after.shape != buffer.shape or after.dtype != buffer.dtype:
        raise NotBatchable("a buffer changes its shape or type")
    buffer.copy_(after)
