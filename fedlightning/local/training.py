"""The local path at a worker: several steps with the module's own optimizers, as a Trainer takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from fedlightning.local.automatic import AutomaticOptimization
from fedlightning.local.failures import LocalStepFailed, NotFinite, require_finite
from fedlightning.local.known import known
from fedlightning.local.lean import LeanOptimization, lean_optimization
from fedlightning.local.logs import LogRecorder, recorded_logs
from fedlightning.local.memory import WorkerMemory
from fedlightning.local.metrics import reset_metrics, take_states
from fedlightning.local.randomness import own_randomness
from fedlightning.local.stepping import training_loss
from fedlightning.local.streams import Stream
from fedlightning.local.visit import Visit, VisitReport
from fedlightning.local.worker_trainer import lend_optimizers
from fedlightning.workers import program


@program(returns="metrics")
def train_locally(
    module: pl.LightningModule,
    optimizers: Sequence[Optimizer],
    stream: Stream,
    memory: WorkerMemory,
    visit: Visit,
) -> VisitReport:
    """Train the module on the batches of a visit, in place.

    Args:
        module: The module, sent to this worker; gradients that it brings along are dropped.
        optimizers: Its optimizers, sent along, with the learning rates of the round.
        stream: The worker's batches.
        memory: What the worker keeps between visits.
        visit: Which batches.

    Returns:
        Mean loss, logged values and metric states over the visit.

    Raises:
        LocalStepFailed: The user's code raised; names the step.
    """
    # The pseudo-gradient of the last round, which a module that steps by hand would add its own to.
    _drop_gradients(module)
    lend_optimizers(module, optimizers)
    if visit.separates_metrics:
        reset_metrics(module)
    precision = module.trainer.precision_plugin
    try:
        with (
            own_randomness(visit.seed),
            recorded_logs(module) as logs,
            stream.kept_on_failure(),
            memory.lent_to(optimizers, precision, visit.round),
        ):
            losses = _take_steps(module, optimizers, stream, visit, logs)
            loss = torch.stack(losses).mean() if losses else None
            if visit.requires_finite:
                require_finite(loss, known(module).parameters)
    except NotFinite:
        return VisitReport(visit.steps, None, (), (), failed=True)
    finally:
        _drop_gradients(module)
    return VisitReport(
        steps=visit.steps,
        loss=loss,
        logs=logs.values,
        metrics=take_states(module) if visit.separates_metrics else (),
    )


def _drop_gradients(module: pl.LightningModule) -> None:
    for parameter in known(module).parameters:
        parameter.grad = None


def _take_steps(
    module: pl.LightningModule,
    optimizers: Sequence[Optimizer],
    stream: Stream,
    visit: Visit,
    logs: LogRecorder,
) -> list[Tensor]:
    """Train on each batch of the visit and return the losses of the steps that were not skipped."""
    automatic = _automatic(module, optimizers[0], logs, visit) if module.automatic_optimization else None
    batches = stream.take(visit.first_step, visit.steps)
    end = visit.first_step + visit.steps
    losses: list[Tensor] = []
    step = visit.first_step
    try:
        for step in range(visit.first_step, end):
            numbered = next(batches, None)
            if numbered is None:
                break
            batch_idx, batch = numbered
            if batch is None:
                continue
            if automatic is None:
                loss = _manual_step(module, batch, batch_idx, visit, logs)
            else:
                last = step + 1 == end or stream.ends_after(batch_idx)
                loss = automatic.step(batch, batch_idx, passes_batch_idx=visit.passes_batch_idx, last=last)
            if loss is not None:
                losses.append(loss)
    except Exception as error:
        raise LocalStepFailed(step) from error
    return losses


def _automatic(
    module: pl.LightningModule, optimizer: Optimizer, logs: LogRecorder, visit: Visit
) -> AutomaticOptimization | LeanOptimization:
    if visit.accumulate == 1 and not known(module).why_not_lean:
        return lean_optimization(module, optimizer, logs)
    return AutomaticOptimization(module, optimizer, logs, accumulate=visit.accumulate)


def _manual_step(
    module: pl.LightningModule, batch: Any, batch_idx: int, visit: Visit, logs: LogRecorder
) -> Tensor | None:
    """Let the module take its own optimizer steps; return the loss, if it tells."""
    loss = training_loss(module, batch, batch_idx if visit.passes_batch_idx else None, logs)
    return None if loss is None else loss.detach().clone()
