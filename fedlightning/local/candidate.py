"""The training loss of a module on a worker's own data, without training: to choose who takes part by it.

What a module logs when it validates is found in ``evaluation``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch

from fedlightning.data.combined_shard import CombinedShard
from fedlightning.data.shard import Shard
from fedlightning.local.failures import named_step
from fedlightning.local.lightning_calls import step_arguments
from fedlightning.local.logs import recorded_logs
from fedlightning.local.metrics import put_states, reset_metrics, take_states
from fedlightning.local.randomness import own_randomness
from fedlightning.local.stepping import training_loss
from fedlightning.workers import program
from fedlightning.workers.remote import record


@record
@dataclass(frozen=True)
class LossRequest:
    """What to measure a loss on.

    Args:
        worker: Name of the worker.
        seed: Seed of the batches, where some are drawn, and of what steps draw themselves.
        batches: How many batches of the worker's data, drawn at random; ``None`` for all of it.
    """

    worker: str
    seed: int
    batches: int | None = None


@program(returns="metrics")
def measure_loss(
    module: pl.LightningModule, shard: Shard | CombinedShard, request: LossRequest
) -> float | None:
    """Average what ``training_step`` returns over a worker's samples, in evaluation mode, without gradients.

    What is logged is dropped. The mode of each part and metric states come out as they went in; what steps
    write elsewhere is for the caller to undo.

    Args:
        module: The module, sent to this worker; it optimizes automatically.
        shard: The worker's data.
        request: On what.

    Returns:
        The mean loss per sample; ``None`` where every step was skipped.

    Raises:
        LocalStepFailed: The user's code raised; names the batch.
    """
    states, modes = take_states(module), {part: part.training for part in module.modules()}
    reset_metrics(module)
    module.eval()
    total, samples = 0.0, 0
    try:
        with own_randomness(request.seed), torch.no_grad(), recorded_logs(module) as logs:
            for number, batch in enumerate(_batches(shard, request)):
                before = logs.samples
                with named_step(number):
                    batch_idx = next(iter(step_arguments(module.training_step, number)), None)
                    loss = training_loss(module, batch, batch_idx, logs)
                if loss is not None:
                    # A batch that does not tell its size counts as one sample.
                    size = max(logs.samples - before, 1)
                    total, samples = total + size * float(loss), samples + size
    finally:
        for part, training in modes.items():
            part.training = training
        put_states(module, states)
    return total / samples if samples else None


def _batches(shard: Shard | CombinedShard, request: LossRequest) -> Iterator[Any]:
    if request.batches is None and isinstance(shard, Shard):
        return shard.in_order()
    # Of several loaders, what belongs together is drawn, not written down: one local epoch is all of it.
    drawn = shard.shuffled()
    count = drawn.num_batches if request.batches is None else min(request.batches, drawn.num_batches)
    return drawn.batches(0, count, seed=request.seed, worker=request.worker)
