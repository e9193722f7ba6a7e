"""Metrics that are named as looking at each sample by itself do count batches laid together as one by one."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
import torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import (
    AUROC,
    BinaryAccuracy,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCohenKappa,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MulticlassStatScores,
)

from fedlightning.local.additive import KINDS, adds_up

CLASSES = 3


def scores(rows: int) -> tuple[Tensor, ...]:
    return torch.randn(rows, CLASSES), torch.randint(CLASSES, (rows,))


def labels(rows: int) -> tuple[Tensor, ...]:
    return torch.randint(CLASSES, (rows,)), torch.randint(CLASSES, (rows,))


def pixels(rows: int) -> tuple[Tensor, ...]:
    return torch.randn(rows, CLASSES, 2), torch.randint(CLASSES, (rows, 2))


def numbers(rows: int) -> tuple[Tensor, ...]:
    return torch.randn(rows), torch.rand(rows) + 0.1


def one(rows: int) -> tuple[Tensor, ...]:
    return (torch.randn(rows),)


MAKES: dict[str, tuple[Callable[[], Metric], Callable[[int], tuple[Tensor, ...]]]] = {
    "micro": (lambda: MulticlassAccuracy(CLASSES, average="micro"), scores),
    "macro": (lambda: MulticlassF1Score(CLASSES), scores),
    "labels": (lambda: MulticlassAccuracy(CLASSES), labels),
    "pixels": (lambda: MulticlassAccuracy(CLASSES), pixels),
    "ignored": (lambda: MulticlassAccuracy(CLASSES, ignore_index=1), scores),
    "top": (lambda: MulticlassAccuracy(CLASSES, top_k=2), scores),
    "confusion": (lambda: MulticlassCohenKappa(CLASSES), scores),
    "jaccard": (lambda: MulticlassJaccardIndex(CLASSES, ignore_index=0), scores),
    "squares": (torchmetrics.MeanSquaredError, numbers),
    "absolutes": (torchmetrics.MeanAbsoluteError, numbers),
    "weighted mean": (torchmetrics.MeanMetric, numbers),
    "sum": (torchmetrics.SumMetric, one),
    "most": (torchmetrics.MaxMetric, one),
    "least": (torchmetrics.MinMetric, one),
}


def test_every_kind_is_tried_out() -> None:
    made = [make() for make, _ in MAKES.values()]
    for kind in KINDS:
        assert any(type(metric).update is kind.update for metric in made), kind


@pytest.mark.parametrize("name", MAKES)
@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_one_update_on_all_samples_is_an_update_on_each_batch(name: str, sizes: list[int], seed: int) -> None:
    make, draw = MAKES[name]
    metric, as_one = make(), make()
    assert adds_up(metric)
    torch.manual_seed(seed)
    batches = [draw(size) for size in sizes]
    for batch in deepcopy(batches):
        metric.update(*batch)
    as_one.update(*(torch.cat(column) for column in zip(*batches, strict=True)))
    for state in metric._defaults:
        expected, found = getattr(metric, state), getattr(as_one, state)
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


class Own(MulticlassAccuracy):
    """Changes what the inherited update calls."""

    def _update_state(self, *counts: Any) -> None:
        super()._update_state(*(count > 0 for count in counts))


@pytest.mark.parametrize(
    "metric",
    [
        BinaryAccuracy(),  # looks whether a batch has any logit that is no probability
        AUROC("multiclass", num_classes=CLASSES),
        MulticlassAUROC(CLASSES, thresholds=5),
        MulticlassStatScores(CLASSES, multidim_average="samplewise"),
        Own(CLASSES),
    ],
    ids=lambda metric: type(metric).__name__,
)
def test_others_do_not(metric: Metric) -> None:
    assert not adds_up(metric)
