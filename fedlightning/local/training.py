"""The local path at a worker: several steps with the module's own optimizer, hooks and clipping."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from fedlightning.local.failures import named_step
from fedlightning.local.logs import LogRecorder, recorded_logs
from fedlightning.local.memory import WorkerMemory
from fedlightning.local.metrics import reset_metrics, take_states
from fedlightning.local.randomness import own_randomness
from fedlightning.local.stepping import training_loss
from fedlightning.local.streams import Stream
from fedlightning.local.visit import Visit, VisitReport
from fedlightning.workers import program


@program(returns="metrics")
def train_locally(
    module: pl.LightningModule, optimizer: Optimizer, stream: Stream, memory: WorkerMemory, visit: Visit
) -> VisitReport:
    """Train the module on the batches of a visit, in place.

    Each step calls the module's hooks in the order of Lightning's automatic optimization.

    Args:
        module: The module, sent to this worker.
        optimizer: Its optimizer, sent along, with the learning rates of the round.
        stream: The worker's batches.
        memory: What the worker keeps between visits: the optimizer's state, as its policy says.
        visit: Which batches.

    Returns:
        Mean loss, logged values and metric states over the visit.

    Raises:
        LocalStepFailed: The user's code raised; names the step.
    """
    if visit.separates_metrics:
        reset_metrics(module)
    losses: list[Tensor] = []
    with own_randomness(visit.seed), recorded_logs(module) as logs, memory.optimizer_state_in(optimizer):
        batches = stream.take(visit.first_step, visit.steps)
        for step in range(visit.first_step, visit.first_step + visit.steps):
            with named_step(step):
                batch_idx, batch = next(batches)
                local_step = _LocalStep(
                    module, optimizer, logs, batch, batch_idx if visit.passes_batch_idx else None
                )
                optimizer.step(local_step)  # type: ignore[arg-type]  # a skipped step has no loss
                losses += local_step.losses
    optimizer.zero_grad()
    return VisitReport(
        steps=visit.steps,
        loss=torch.stack(losses).mean() if losses else None,
        logs=logs.values,
        metrics=take_states(module) if visit.separates_metrics else (),
    )


class _LocalStep:
    """The closure of one optimizer step: loss, gradients and clipping, as Lightning orders them."""

    def __init__(
        self,
        module: pl.LightningModule,
        optimizer: Optimizer,
        logs: LogRecorder,
        batch: object,
        batch_idx: int | None,
    ) -> None:
        self._module = module
        self._optimizer = optimizer
        self._logs = logs
        self._batch = batch
        self._batch_idx = batch_idx
        self.losses: list[Tensor] = []

    @torch.enable_grad()
    def __call__(self) -> Tensor | None:
        module, optimizer = self._module, self._optimizer
        loss = training_loss(module, self._batch, self._batch_idx, self._logs)
        module.on_before_zero_grad(optimizer)
        module.optimizer_zero_grad(module.current_epoch, self._batch_idx or 0, optimizer)
        if loss is not None:
            module.on_before_backward(loss)
            module.backward(loss)
            module.on_after_backward()
            self.losses = [loss.detach().clone()]
        module.on_before_optimizer_step(optimizer)
        module.configure_gradient_clipping(
            optimizer,
            gradient_clip_val=module.trainer.gradient_clip_val,
            gradient_clip_algorithm=module.trainer.gradient_clip_algorithm,
        )
        return loss
