"""One local step of a single worker, in a stack of one: faster than by itself, where steps are long.

Where most of a step is arithmetic, vmap has nothing to give. What is left: convolutions whose weights lie
channel by channel (``stack``), and updates of linear maps that go right into the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_unflatten
from typing_extensions import override

from fedlightning.local.vectorised.gradients import Factors, Gradients
from fedlightning.local.vectorised.operators import Product
from fedlightning.local.vectorised.randomness import DividedDraws, LoneDraws
from fedlightning.local.vectorised.stacked_batch import StackedBatch
from fedlightning.local.vectorised.step import BatchedStep, apart, take_over


class LoneStep(BatchedStep):
    """Compute the loss and gradients of one worker; otherwise as `BatchedStep`."""

    @override
    def gradients(
        self,
        batch: StackedBatch,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
        draws: DividedDraws | LoneDraws | None,
    ) -> Gradients:
        leaves = [parameter[0].detach().requires_grad_() for parameter in parameters]
        own_batch = tree_unflatten([tensor[0] for tensor in batch.tensors], batch.structure)
        operators = _Operators(leaves)
        randomness: AbstractContextManager[Any] = nullcontext() if draws is None else draws
        self._logs.start_step(own_batch)
        own_buffers = [buffer[0] for buffer in buffers]
        with self._places.filled(leaves, own_buffers), randomness:
            with torch.enable_grad(), operators:
                loss = self._loss(own_batch, batch.batch_idx)
                logged = [value.unsqueeze(0) for value in self._logs.take()]
            left = self._places.current_buffers(len(own_buffers))
            outputs = [product.outputs for product in operators.products]
            found = torch.autograd.grad(loss, [*leaves, *outputs], allow_unused=True)
        kept, *logged = apart([loss.detach().unsqueeze(0), *logged], (*parameters, *buffers))
        self._logs.keep(batch.rows, logged)
        for buffer, after in zip(own_buffers, left, strict=True):
            if after is not buffer:
                take_over(buffer, after)
        whole = [None if gradient is None else gradient.unsqueeze(0) for gradient in found[: len(leaves)]]
        factors = [
            Factors(product.weight, product.inputs, outer.unsqueeze(0))
            for product, outer in zip(operators.products, found[len(leaves) :], strict=True)
            if outer is not None
        ]
        return Gradients(kept, whole, factors, logged)


class _Operators(TorchFunctionMode):
    """Note where weights are used in linear maps, as `WorkerOperators` does under vmap; and keep layouts.

    Args:
        parameters: What the worker trains.

    Attributes:
        products: The uses of weights so far.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        super().__init__()
        self._positions = {id(parameter): position for position, parameter in enumerate(parameters)}
        self.products: list[Product] = []

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.linear and torch.is_grad_enabled():
            return self._linear(*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        if func in (F.max_pool2d, torch.max_pool2d):
            _keep_layout_of_gradient(result)
        return result

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        position = self._positions.get(id(weight))
        if position is None or input.dim() < 2 or input.dtype != weight.dtype:
            return F.linear(input, weight, bias)
        rows = input.flatten(0, -2)
        outputs = F.linear(rows, weight.detach(), bias)
        if not outputs.requires_grad:
            outputs.requires_grad_()
        self.products.append(Product(position, rows.detach().unsqueeze(0), outputs))
        return outputs.view(*input.shape[:-1], -1)


def _keep_layout_of_gradient(pooled: Tensor) -> None:
    """Let the gradient of what was pooled lie channel by channel, where that does.

    Whoever reads it in another order (`flatten`) leaves a gradient in that one, and torch's backward of
    pooling by maxima then copies all that it reads and writes: it takes six times as long.
    """
    last = torch.channels_last
    if pooled.requires_grad and pooled.is_contiguous(memory_format=last) and not pooled.is_contiguous():
        pooled.register_hook(_by_channel)  # type: ignore[no-untyped-call]  # torch's, which is untyped


def _by_channel(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)
