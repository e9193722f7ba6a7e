"""The local path at a worker: several steps with the module's own optimizers, as a Trainer takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import lightning.pytorch as pl
from torch import Tensor
from torch.optim import Optimizer

from fedlightning.local.buffers import kept_buffers
from fedlightning.local.failures import NotFinite, require_finite
from fedlightning.local.known import known
from fedlightning.local.logs import recorded_logs
from fedlightning.local.memory import WorkerMemory
from fedlightning.local.metrics import report_states, reset_metrics
from fedlightning.local.procedure import LocalProcedure, LocalTraining
from fedlightning.local.randomness import own_randomness
from fedlightning.local.scheduling import describe_schedulers, lend_schedulers
from fedlightning.local.streams import Stream
from fedlightning.local.visit import Visit, VisitReport
from fedlightning.local.visit_steps import VisitSteps
from fedlightning.local.worker_trainer import lend_optimizers
from fedlightning.workers import program


@program(returns="metrics")
def train_locally(
    module: pl.LightningModule,
    optimizers: Sequence[Optimizer],
    stream: Stream,
    memory: WorkerMemory,
    visit: Visit,
    procedure: LocalProcedure | None = None,
) -> VisitReport:
    """Train the module on the batches of a visit, in place.

    Args:
        module: The module, sent to this worker.
        optimizers: Its optimizers, sent along, with the learning rates of the round.
        stream: The worker's batches.
        memory: What the worker keeps between visits.
        visit: Which batches.
        procedure: What an algorithm does in a visit; ``None`` to train, and nothing else.

    Returns:
        Mean loss, logged values and metric states over the visit.

    Raises:
        LocalStepFailed: The user's code raised; names the step.
    """
    lend_optimizers(module, optimizers)
    schedulers = lend_schedulers(module, visit.schedulers, optimizers)
    if visit.separates_metrics:
        reset_metrics(module)
    precision = module.trainer.precision_plugin
    try:
        with (
            own_randomness(visit.seed),
            recorded_logs(module) as logs,
            stream.kept_on_failure(),
            memory.lent_to(optimizers, precision, visit.round),
            _own_gradients(module, keeps=visit.keeps_gradients),
            kept_buffers(module, memory) if visit.keeps_buffers else nullcontext(),
        ):
            revisits = procedure is not None and procedure.revisits
            steps = VisitSteps(module, optimizers, stream, visit, revisits=revisits)
            if procedure is None:
                steps.take(logs)
            else:
                procedure.run(LocalTraining(module, optimizers, memory, stream, steps, logs))
            loss = steps.loss
            if visit.requires_finite:
                require_finite(loss, known(module).parameters)
    except NotFinite:
        return VisitReport(visit.steps, None, (), (), failed=True)
    return VisitReport(
        steps=visit.steps,
        loss=loss,
        logs=logs.values,
        metrics=report_states(module) if visit.separates_metrics else (),
        samples=logs.samples,
        wastes_gradients=steps.left_gradients and not visit.keeps_gradients,
        schedulers=describe_schedulers(schedulers, optimizers),
    )


@contextmanager
def _own_gradients(module: pl.LightningModule, *, keeps: bool) -> Iterator[None]:
    """Drop the gradients that a module brings along, and those of the visit; or keep them, unless it fails.

    A module that steps by hand would add its own to the pseudo-gradient of the last round.
    """
    parameters = known(module).parameters
    if not keeps:
        _drop_gradients(parameters)
        try:
            yield
        finally:
            _drop_gradients(parameters)
        return
    brought = [None if parameter.grad is None else parameter.grad.clone() for parameter in parameters]
    try:
        yield
    except BaseException:
        for parameter, gradient in zip(parameters, brought, strict=True):
            parameter.grad = gradient
        raise


def _drop_gradients(parameters: Sequence[Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None
