"""Which torchmetrics count samples that are laid together as they count them batch by batch.

That cannot be found out by trying: many metrics look at a batch as a whole before they decide what its
numbers mean, logits or probabilities. So those that are known to look at each sample by itself are named.
"""

from __future__ import annotations

from torch import Tensor
from torchmetrics import (
    MaxMetric,
    MeanAbsoluteError,
    MeanMetric,
    MeanSquaredError,
    Metric,
    MinMetric,
    SumMetric,
)
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassStatScores
from torchmetrics.utilities.data import dim_zero_max, dim_zero_min, dim_zero_sum

KINDS: tuple[type[Metric], ...] = (
    MaxMetric,
    MeanAbsoluteError,
    MeanMetric,
    MeanSquaredError,
    MinMetric,
    MulticlassConfusionMatrix,
    MulticlassStatScores,
    SumMetric,
)
"""Metrics that look at each sample by itself, as do those that torchmetrics derives from them."""

_UPDATES = {kind.update for kind in KINDS}
_REDUCTIONS = (dim_zero_sum, dim_zero_max, dim_zero_min)


def adds_up(metric: Metric) -> bool:
    """Tell whether one update on the samples of several batches leaves what one update for each leaves.

    Numbers of samples are the same then, and sums of floating-point numbers are to rounding.

    Args:
        metric: The metric.
    """
    kind = type(metric)
    # A user's own kind may have changed what its update calls.
    return (
        kind.__module__.startswith("torchmetrics.")
        and kind.update in _UPDATES
        and all(isinstance(default, Tensor) for default in metric._defaults.values())
        and all(reduction in _REDUCTIONS for reduction in metric._reductions.values())
    )
