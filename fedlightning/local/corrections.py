"""Gradients changed right before each step of an optimizer, whoever asks for the step: loop or module.

Done by a hook of torch's optimizers, so that automatic and manual optimization, accumulation, clipping,
16-bit scaling and several optimizers all work alike; the lean loop, which asks no optimizer, calls it itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Correction = Callable[[Sequence[int], Sequence[Tensor]], None]
"""Changes gradients in place, given the positions of their parameters among the module's."""


class StepCounter:
    """Count the steps of each parameter, and how far their learning rates would have taken it.

    Args:
        parameters: All parameters of the module.

    Attributes:
        steps: Steps of each parameter.
        distances: Sum of the learning rates of each parameter's steps.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.steps = [0] * len(parameters)
        self.distances = [0.0] * len(parameters)
        self._parameters = parameters
        self._positions: dict[Tensor, int] = {}

    def count(self, optimizer: Optimizer) -> tuple[list[int], list[Tensor]]:
        """Count a step of an optimizer, and return the positions and gradients of what it steps."""
        if not self._positions:
            self._positions = {tensor: position for position, tensor in enumerate(self._parameters)}
        positions: list[int] = []
        gradients: list[Tensor] = []
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                position = self._positions[parameter]
                self.steps[position] += 1
                self.distances[position] += float(group["lr"])
                positions.append(position)
                gradients.append(parameter.grad)
        return positions, gradients


class StepCorrection:
    """What is done right before each step of an optimizer: the step is counted, its gradients are corrected.

    Args:
        counter: Counts the steps.
        correct: Changes gradients in place; ``None`` to leave them.
    """

    def __init__(self, counter: StepCounter, correct: Correction | None) -> None:
        self._counter = counter
        self._correct = correct

    def before_step(self, optimizer: Optimizer) -> None:
        """Count a step whose gradients are there, and correct these.

        Args:
            optimizer: It is about to step, or somebody in its place.
        """
        with torch.set_grad_enabled(False):  # half the price of `no_grad`, which makes two of them
            positions, gradients = self._counter.count(optimizer)
            if self._correct is not None and positions:
                self._correct(positions, gradients)

    @contextmanager
    def listening_to(self, optimizers: Sequence[Optimizer]) -> Iterator[None]:
        """Correct within the block whatever these optimizers step, whoever asks for it."""
        with ExitStack() as hooks:
            for optimizer in optimizers:
                hooks.callback(optimizer.register_step_pre_hook(self._hook).remove)
            yield

    def _hook(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self.before_step(optimizer)
            return None

        # The gradients do not exist yet: the step computes them by its closure.
        def correcting_closure() -> Any:
            loss = closure()
            self.before_step(optimizer)
            return loss

        return (optimizer,), {**kwargs, "closure": correcting_closure}
