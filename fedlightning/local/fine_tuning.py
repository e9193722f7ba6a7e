"""What is done on a worker's training data before a module is used there: a few steps, or a look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fedlightning.local.lightning_calls import step_arguments
from fedlightning.local.logs import recorded_logs
from fedlightning.local.metrics import put_states, take_states
from fedlightning.local.procedure import LocalModel
from fedlightning.local.stepping import training_loss


def fine_tune(local: LocalModel, *, steps: int, rate: float) -> None:
    """Train the module in place by plain SGD, in training mode.

    Args:
        local: The module at a worker.
        steps: Batches to train on, the first ones of its training data.
        rate: Learning rate.
    """
    trained = [parameter for parameter in local.parameters if parameter.requires_grad]
    # Lightning evaluates in inference mode, in which nothing can be trained.
    with _mode(local, training=True), torch.inference_mode(False), torch.enable_grad():
        for loss in _losses(local, steps):
            _descend(loss, trained, rate)


def mean_loss(local: LocalModel, *, batches: int) -> float:
    """Return the mean training loss of the module as it is, in evaluation mode.

    Args:
        local: The module at a worker.
        batches: Batches to take it over, the first ones of its training data.
    """
    with _mode(local, training=False), torch.no_grad():
        losses = [float(loss) for loss in _losses(local, batches)]
    return sum(losses) / len(losses) if losses else float("inf")


def _losses(local: LocalModel, count: int) -> Iterator[Tensor]:
    module = local.module
    states = take_states(module)
    with recorded_logs(module) as logs:
        for number, batch in enumerate(local.batches(count)):
            idx = number if step_arguments(module.training_step, number) else None
            loss = training_loss(module, batch, idx, logs)
            if loss is not None:
                yield loss
    put_states(module, states)


@contextmanager
def _mode(local: LocalModel, *, training: bool) -> Iterator[None]:
    modes = {part: part.training for part in local.module.modules()}
    local.module.train(training)
    try:
        yield
    finally:
        for part, before in modes.items():
            part.training = before


def _descend(loss: Tensor, trained: list[Tensor], rate: float) -> None:
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(trained, gradients, strict=True):
            if gradient is not None:
                parameter.sub_(gradient, alpha=rate)
