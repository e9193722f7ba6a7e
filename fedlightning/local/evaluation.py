"""Evaluate a module on a worker's own data: what ``validation_step`` logs there, and nothing else, leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import lightning.pytorch as pl
import torch
from torch import Tensor

from fedlightning.data.combined_shard import CombinedShard
from fedlightning.data.shard import Shard
from fedlightning.local.lightning_calls import step_arguments, transfer_batch
from fedlightning.local.logs import LogRecorder, recorded_logs
from fedlightning.local.metrics import metric_at, put_states, reset_metrics, take_states
from fedlightning.local.personal import personal_in_place
from fedlightning.local.randomness import own_randomness
from fedlightning.workers import program
from fedlightning.workers.payload import payload_bytes


@program(returns="metrics")
def evaluate_locally(
    module: pl.LightningModule, shard: Shard | CombinedShard, personal: Sequence[Tensor] | None = None
) -> dict[str, float]:
    """Run ``validation_step`` over a worker's shard, in order, without gradients.

    The module comes out as it went in: the mode of each part and metric states are restored. Random numbers
    are drawn from a stream of the evaluation's own.

    Args:
        module: The module, sent to this worker.
        shard: The worker's data.
        personal: The worker's own version of the module, where its algorithm has one.

    Returns:
        The final value of everything that was logged as a single number, by name.
    """
    states, modes = take_states(module), {part: part.training for part in module.modules()}
    reset_metrics(module)
    module.eval()
    try:
        with (
            own_randomness(0),
            torch.no_grad(),
            recorded_logs(module) as logs,
            personal_in_place(module, personal),
        ):
            for batch_idx, batch in enumerate(shard.in_order()):
                batch = transfer_batch(module, batch)
                logs.start_step(batch)
                with module.trainer.precision_plugin.val_step_context():
                    module.validation_step(batch, *step_arguments(module.validation_step, batch_idx))
            return _final_values(module, logs)
    finally:
        for part, training in modes.items():
            part.training = training
        put_states(module, states)


def _final_values(module: pl.LightningModule, logs: LogRecorder) -> dict[str, float]:
    values: dict[str, float] = {}
    for logged in logs.values:
        value = metric_at(module, logged.metric).compute() if logged.metric else logged.value
        if value is not None and value.numel() == 1:
            values[logged.name] = float(value)
    return values


@program(returns="data")
def count_labels(shard: Shard | CombinedShard) -> Counter[int] | None:
    """Return how many samples of each label a worker has, or ``None`` where its data has no labels.

    Exact counts of private labels are private data: of a shard with one sample, they are its label.
    """
    return shard.label_counts()


@program(returns="metadata")
def count_bytes(shard: Shard | CombinedShard) -> int:
    """Return the bytes of a worker's samples; 0 where the dataset is not made of tensors."""
    return payload_bytes(shard)
