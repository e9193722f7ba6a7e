"""Merging metric states equals one metric that has seen all data: exact, uneven, with empty workers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchmetrics import MaxMetric, MeanMetric, Metric, MetricCollection, MinMetric, PearsonCorrCoef, R2Score
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

from fedlightning.local.metrics import merge_states, put_states, reset_metrics, take_states

PROBABILITIES: dict[str, Any] = {
    "accuracy": lambda: MulticlassAccuracy(3),
    "confusion": lambda: MulticlassConfusionMatrix(3),
    "auroc": lambda: MulticlassAUROC(3),
    "auroc with thresholds": lambda: MulticlassAUROC(3, thresholds=20),
}
SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 2)


class Holder(nn.Module):
    def __init__(self, metric: nn.Module) -> None:
        super().__init__()
        self.metric = metric


def scores(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, generator=generator).softmax(-1), torch.arange(count) % 3


@pytest.mark.parametrize("name", PROBABILITIES)
@given(SIZES)
@settings(max_examples=20)
def test_merged_states_equal_the_pooled_metric(name: str, sizes: list[int]) -> None:
    make = PROBABILITIES[name]
    inputs, targets = scores(sum(sizes), seed=0)
    pooled = make()
    pooled.update(inputs, targets)
    holder, groups = Holder(make()), []
    for x, y in zip(inputs.split(sizes), targets.split(sizes), strict=True):
        reset_metrics(holder)
        if len(x):
            holder.metric.update(x, y)
        groups.append(take_states(holder))
    put_states(holder, merge_states(holder, groups))
    torch.testing.assert_close(holder.metric.compute(), pooled.compute(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [MeanMetric, MaxMetric, MinMetric, R2Score])
def test_regression_and_aggregation(kind: type[Metric]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(9, generator=generator), torch.randn(9, generator=generator)
    arguments = [x, y] if kind is R2Score else [x]
    pooled, holder, groups = kind(), Holder(kind()), []
    pooled.update(*arguments)
    for part in (slice(0, 2), slice(2, 9)):
        reset_metrics(holder)
        holder.metric.update(*[argument[part] for argument in arguments])
        groups.append(take_states(holder))
    put_states(holder, merge_states(holder, groups))
    torch.testing.assert_close(holder.metric.compute(), pooled.compute(), rtol=0, atol=1e-6)


def test_groups_of_a_collection_do_not_share_what_was_put() -> None:
    make = lambda: MetricCollection([MulticlassAccuracy(3), MulticlassF1Score(3)])  # noqa: E731 - a constructor
    inputs, targets = scores(12, seed=1)
    pooled, holder, groups = make(), Holder(make()), []
    pooled.update(inputs, targets)
    for part in (slice(0, 3), slice(3, 12)):
        reset_metrics(holder)
        holder.metric.update(inputs[part], targets[part])
        groups.append(take_states(holder))
    put_states(holder, merge_states(holder, groups))
    assert holder.metric.compute() == pooled.compute()
    # ... and goes on from there.
    for metric in (holder.metric, pooled):
        metric.update(inputs, targets)
    assert holder.metric.compute() == pooled.compute()


def test_a_taken_state_is_a_copy() -> None:
    holder = Holder(MulticlassConfusionMatrix(3))
    inputs, targets = scores(6, seed=0)
    holder.metric.update(inputs, targets)
    (state,) = take_states(holder)
    before = state.values["confmat"].clone()
    holder.metric.update(inputs, targets)
    assert torch.equal(state.values["confmat"], before)


def test_metrics_that_were_not_updated_are_left_out() -> None:
    assert take_states(Holder(MeanMetric())) == ()


def test_a_state_without_a_reduction_is_refused() -> None:
    holder = Holder(PearsonCorrCoef())
    holder.metric.update(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0]))
    state = take_states(holder)
    with pytest.raises(ValueError, match=r"PearsonCorrCoef\.\w+ has no reduction over workers"):
        merge_states(holder, [state, state])
    # One worker alone needs no merging.
    assert merge_states(holder, [state]) == state
