"""Operators that many workers take at once more cheaply than vmap would: linear maps, and cross-entropy.

A linear map's gradient is the product of two small matrices. It is left as these, so that plain SGD adds it
right into the weights, as one call does, and a gradient of the weights' size is never written down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from fedlightning.local.vectorised.functorch_calls import of_workers, one_of

FEW_CLASSES = 32
"""Up to so many, a softmax row by row takes several times as long as one of all rows, class by class."""


@dataclass(frozen=True)
class Product:
    """A use of a weight in a linear map: the weight's gradient is ``d^T x``, with ``d`` that of the output.

    Args:
        weight: Which of the parameters it is.
        inputs: ``x``, shape ``(workers, n, in)``, without a graph.
        outputs: The map's result, shape ``(workers, n, out)``, in the loss's graph.
    """

    weight: int
    inputs: Tensor
    outputs: Tensor


class WorkerOperators(TorchFunctionMode):
    """Call the operators of a batched step, and note where weights are used in linear maps.

    Args:
        parameters: What the workers train, each of shape ``(workers, ...)``.

    Attributes:
        products: The uses of weights so far.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        super().__init__()
        self._positions = {id(parameter): position for position, parameter in enumerate(parameters)}
        self._root = torch.zeros((), device=parameters[0].device, requires_grad=True)
        self.products: list[Product] = []

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        fast = None
        if func is F.linear:
            fast = self._linear(*args, **(kwargs or {}))
        elif func is F.cross_entropy:
            fast = _cross_entropy(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if fast is None else fast

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
        inputs, weights = of_workers(input), of_workers(weight)
        if inputs is None or weights is None or inputs.dim() < 3 or not torch.is_grad_enabled():
            return None
        position = self._positions.get(id(weights))
        offsets = None if bias is None else of_workers(bias)
        # Weights that were computed have a graph of their own.
        if position is None or (bias is not None and offsets is None) or inputs.dtype != weights.dtype:
            return None
        rows = inputs.flatten(1, -2)
        maps = weights.detach().transpose(1, 2)
        if offsets is None:
            outputs = torch.bmm(rows, maps)
        else:
            outputs = torch.baddbmm(offsets.unsqueeze(1), rows, maps)
        if not outputs.requires_grad:
            # Its gradient is wanted all the same, and a tensor made under vmap cannot start a graph.
            outputs = outputs + self._root.to(outputs.dtype)
        self.products.append(Product(position, rows.detach(), outputs))
        return one_of(outputs.view(*inputs.shape[:-1], -1), weight)


def _cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor | None:
    scores, classes = of_workers(input), of_workers(target)
    if scores is None or classes is None or scores.dim() != 3 or classes.dim() != 2:
        return None
    if weight is not None or size_average is not None or reduce is not None or reduction != "mean":
        return None
    rows, expected = scores.flatten(0, 1), classes.flatten()
    if rows.shape[1] <= FEW_CLASSES:
        rows, expected = rows.t().contiguous().unsqueeze(0), expected.unsqueeze(0)
    losses = F.cross_entropy(
        rows, expected, ignore_index=ignore_index, reduction="none", label_smoothing=label_smoothing
    )
    counts = classes.ne(ignore_index).sum(1)
    return one_of(losses.view_as(classes).sum(1) / counts, input)
