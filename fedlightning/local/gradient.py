"""The gradient path at a worker: forward and backward on one batch; the optimizer stays at the controller."""

from __future__ import annotations

import lightning.pytorch as pl
from torch import Tensor

from fedlightning.local.failures import NotFinite, named_step, require_finite
from fedlightning.local.logs import recorded_logs
from fedlightning.local.metrics import report_states, reset_metrics
from fedlightning.local.randomness import own_randomness
from fedlightning.local.stepping import training_loss
from fedlightning.local.streams import Stream
from fedlightning.local.visit import Visit, VisitReport
from fedlightning.workers import program


@program(returns="metrics")
def compute_gradients(module: pl.LightningModule, stream: Stream, visit: Visit) -> VisitReport:
    """Compute the gradients of one batch and leave them on the module, which takes them home.

    Args:
        module: The module, sent to this worker; its gradients are replaced.
        stream: The worker's batches.
        visit: Which batch; one local step.

    Returns:
        Loss, logged values and metric states of the step.

    Raises:
        LocalStepFailed: The user's code raised.
    """
    for parameter in module.parameters():
        parameter.grad = None
    if visit.separates_metrics:
        reset_metrics(module)
    try:
        with own_randomness(visit.seed), recorded_logs(module) as logs, stream.kept_on_failure():
            with named_step(visit.first_step):
                ((batch_idx, batch),) = stream.take(visit.first_step, 1)
                loss = training_loss(module, batch, batch_idx if visit.passes_batch_idx else None, logs)
                if loss is not None:
                    module.backward(_scaled(module, loss / visit.accumulate))
            if visit.requires_finite:
                require_finite(loss, [parameter.grad for parameter in module.parameters()])
    except NotFinite:
        return VisitReport(1, None, (), (), failed=True)
    return VisitReport(
        steps=1,
        loss=None if loss is None else loss.detach().clone(),
        logs=logs.values,
        metrics=report_states(module) if visit.separates_metrics else (),
        samples=logs.samples,
    )


def _scaled(module: pl.LightningModule, loss: Tensor) -> Tensor:
    """Return the loss as 16-bit precision wants it; the controller's scaler unscales the average."""
    scaler = getattr(module.trainer.precision_plugin, "scaler", None)
    return loss if scaler is None else scaler.scale(loss)
