"""Torchmetrics in steps that are taken together count what they count at one worker after the other."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torchmetrics import MeanMetric, MeanSquaredError, Metric, MetricCollection, SumMetric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassPrecision,
    MulticlassRecall,
)
from torchmetrics.wrappers import BootStrapper, MinMaxMetric

from fedlightning.local.metrics import MetricState, merge_states, take_states
from fedlightning.local.vectorised import counting, training
from fedlightning.local.vectorised.chunks import Errand, Errands, SeparateErrands
from fedlightning.local.vectorised.training import VectorisedTraining
from fedlightning.local.vectorised.trial import examine
from tests.local.vectorised.toys import CLASSES, Cohort, Net, assert_same_outcomes, streams

PLAIN = partial(SGD, lr=0.1)
SIZES = [9, 12, 3, 9, 13, 8, 12, 12]


class LongestBatch(Metric):
    """A user's own, with a state of each kind."""

    seen: list[Tensor]
    longest: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("longest", torch.tensor(0.0), dist_reduce_fx="max")
        self.add_state("mean", torch.tensor(0.0), dist_reduce_fx="mean")
        self.add_state("seen", [], dist_reduce_fx="cat")

    def update(self, scores: Tensor, y: Tensor) -> None:
        self.longest = torch.maximum(self.longest, torch.tensor(float(len(y))))
        self.mean = self.mean + scores.mean().float()
        self.seen.append(y[:1])

    def compute(self) -> Tensor:
        return self.longest


class Metered(Net):
    """Count in every step by a metric of some kind."""

    def __init__(self, make_metric: Any, use: str = "forward") -> None:
        super().__init__(PLAIN)
        self.counted = make_metric()
        self.use = use

    def given(self, scores: Tensor, y: Tensor) -> tuple[Any, ...]:
        return scores, y

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        scores = self.head(self.body(batch[0]))
        given = self.given(scores, batch[1])
        if self.use == "forward":
            self.counted(*given)
        else:
            self.counted.update(*given)
        if isinstance(self.counted, MetricCollection):
            self.log_dict(self.counted)
        else:
            self.log("counted", self.counted)
        return super().training_step(batch, batch_idx)


class Weighted(Metered):
    def given(self, scores: Tensor, y: Tensor) -> tuple[Any, ...]:
        return scores.mean(), len(y)


class WeightedEach(Metered):
    def given(self, scores: Tensor, y: Tensor) -> tuple[Any, ...]:
        return scores.amax(1), 1.0 + y


class Regresses(Metered):
    def given(self, scores: Tensor, y: Tensor) -> tuple[Any, ...]:
        return scores[:, 0], y.double()


class CountsSteps(Metered):
    def given(self, scores: Tensor, y: Tensor) -> tuple[Any, ...]:
        return (1.0,)


class OfWeights(Metered):
    """Measure what the step changes in place once it is over."""

    def given(self, scores: Tensor, y: Tensor) -> tuple[Any, ...]:
        return (self.head.weight,)


class LogsValue(Metered):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        value = self.counted(self.head(self.body(batch[0])), batch[1])
        if isinstance(self.counted, MetricCollection):
            self.log_dict(value)
        else:
            self.log("value", value)
        return Net.training_step(self, batch, batch_idx)


def groups() -> MetricCollection:
    return MetricCollection(
        {
            "precision": MulticlassPrecision(CLASSES),
            "recall": MulticlassRecall(CLASSES),
            "hits": MulticlassAccuracy(CLASSES, average="micro"),
        },
        prefix="train/",
    )


def mixed() -> MetricCollection:
    return MetricCollection({"accuracy": MulticlassAccuracy(CLASSES), "auroc": MulticlassAUROC(CLASSES)})


MODULES: dict[str, Any] = {
    "accuracy": lambda: Metered(lambda: MulticlassAccuracy(CLASSES, average="micro")),
    "accuracy, updated": lambda: Metered(lambda: MulticlassAccuracy(CLASSES), "update"),
    "squares": lambda: Regresses(MeanSquaredError),
    "weighted mean": lambda: Weighted(MeanMetric),
    "weighted mean of rows": lambda: WeightedEach(MeanMetric, "update"),
    "number": lambda: CountsSteps(SumMetric),
    "weights": lambda: OfWeights(SumMetric),
    "auroc": lambda: Metered(lambda: MulticlassAUROC(CLASSES)),
    "own": lambda: Metered(LongestBatch),
    "own, updated": lambda: Metered(LongestBatch, "update"),
    "groups": lambda: Metered(groups, "update"),
    "groups, forward": lambda: Metered(groups),
    "mixed": lambda: Metered(mixed, "update"),
    "wrapper": lambda: Metered(lambda: MinMaxMetric(MulticlassAccuracy(CLASSES))),
    "value": lambda: LogsValue(lambda: MulticlassAccuracy(CLASSES)),
    "values": lambda: LogsValue(groups),
}


def assert_same_states(ours: Any, theirs: Any) -> None:
    assert [(state.path, state.updates) for state in ours] == [(s.path, s.updates) for s in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.values, other.values, rtol=1e-5, atol=1e-6)


def assert_counted_alike(cohort: Cohort, rounds: int = 2, **settings: Any) -> None:
    settings = {"numbered": False, "draws": False, "chunk": 3, **settings}
    vectorised = VectorisedTraining(cohort.module, cohort.optimizer, **settings)
    for round in range(rounds):
        visits = cohort.visits(round)
        ours, theirs = cohort.at_once(visits, training=vectorised), cohort.one_by_one(visits)
        assert_same_outcomes(ours, theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.report.metrics
            assert_same_states(mine.report.metrics, other.report.metrics)
            assert [log.metric for log in mine.report.logs] == [log.metric for log in other.report.logs]


@pytest.mark.parametrize("name", MODULES)
def test_each_worker_counts_what_it_counts_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "USES", 2)  # tapes are played
    cohort = Cohort(MODULES[name](), streams(SIZES))
    assert examine(cohort.module, [cohort.optimizer], errands(cohort), 2).reason == ""
    assert_counted_alike(cohort)


@pytest.mark.parametrize("name", ["accuracy", "auroc", "value"])
def test_a_chunk_of_one_counts_alike(name: str) -> None:
    assert_counted_alike(Cohort(MODULES[name](), streams(SIZES)), chunk=1)


@pytest.mark.parametrize("name", ["accuracy", "own", "groups", "value"])
def test_what_is_counted_on_the_way_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MOST_BYTES", 300)
    assert_counted_alike(Cohort(MODULES[name](), streams(SIZES)))


def errands(cohort: Cohort) -> SeparateErrands:
    every = zip(cohort.data, cohort.memories[1], cohort.visits(), strict=True)
    return SeparateErrands([Errand(*parts) for parts in every])


def counted_as_one(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Train where nobody asks what each worker's metrics come to."""
    monkeypatch.setattr(Errands, "metrics_of_each", False)
    vectorised = VectorisedTraining(cohort.module, cohort.optimizer, chunk=3, numbered=False, draws=False)
    return [(done.numbers, done.reports.metrics) for done in vectorised.train(errands(cohort))]


@pytest.mark.parametrize("name", MODULES)
def test_what_all_count_as_one_is_what_all_count(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = Cohort(MODULES[name](), streams(SIZES))
    alone = [outcome.report.metrics for outcome in cohort.one_by_one(cohort.visits())]
    chunks = counted_as_one(cohort, monkeypatch)
    groups = [group for _, found in chunks for group in found.groups]
    assert any(found.of_all for _, found in chunks) == (name in AS_ONE)
    ours, theirs = merge_states(cohort.module, groups), merge_states(cohort.module, alone)
    assert_same_states(sorted(map(in_order, ours), key=path_of), sorted(map(in_order, theirs), key=path_of))


AS_ONE = {
    "accuracy",
    "accuracy, updated",
    "squares",
    "weighted mean",
    "weighted mean of rows",
    "weights",
    "groups",
    "groups, forward",
}


def path_of(state: MetricState) -> str:
    return state.path


def in_order(state: MetricState) -> MetricState:
    """Sort what metrics keep of samples: chunks come in another order than workers."""
    values: dict[str, Any] = {
        name: torch.cat([part.double().flatten() for part in value]).sort().values
        if isinstance(value, list)
        else value
        for name, value in state.values.items()
    }
    return MetricState(state.path, state.updates, values)


def test_workers_that_end_with_other_than_finite_numbers_are_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for as_one in (False, True):
        data = streams(SIZES)
        assert data[0].memory is not None
        data[0].memory[0][20] = torch.inf
        cohort = Cohort(MODULES["accuracy"](), data, requires_finite=True)
        alone = [outcome.report.metrics for outcome in cohort.one_by_one(cohort.visits())]
        assert [not states for states in alone].count(True) == 1
        if not as_one:
            assert [o.report.metrics == () for o in cohort.at_once(cohort.visits())] == [not s for s in alone]
            continue
        chunks = counted_as_one(cohort, monkeypatch)
        merged = merge_states(cohort.module, [found.of_all for _, found in chunks])
        assert_same_states(merged, merge_states(cohort.module, alone))
        bytes_of = {
            number: weight
            for numbers, found in chunks
            for number, weight in zip(numbers.tolist(), np.asarray(found.bytes_of_each).tolist(), strict=True)
        }
        assert [bytes_of[number] > 0 for number in range(len(alone))] == [bool(states) for states in alone]


def test_the_modules_own_states_stay() -> None:
    cohort = Cohort(MODULES["groups"](), streams(SIZES))
    cohort.module.counted.update(torch.eye(CLASSES), torch.arange(CLASSES))
    before = take_states(cohort.module)
    cohort.at_once(cohort.visits())
    assert before
    assert_same_states(take_states(cohort.module), before)
    assert "forward" not in vars(cohort.module.counted["recall"])


class Masks(Metered):
    def given(self, scores: Tensor, y: Tensor) -> tuple[Any, ...]:
        return scores[y > 0], y[y > 0]


class Computes(Metered):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return loss * self.counted.compute()


class Multiplies(Metered):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return loss * self.counted(self.head(self.body(batch[0])), batch[1])


class LooksAt(Metered):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        value = self.counted(self.head(self.body(batch[0])), batch[1])
        self.log("value", value.item())
        return Net.training_step(self, batch, batch_idx)


class ReadsState(Metered):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("hits so far", self.counted.tp.sum())
        return loss


class Twice(nn.Module):
    """Updates a metric in a collection and by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.every = groups()


class UpdatesTwice(Metered):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        scores = self.head(self.body(batch[0]))
        self.counted.every.update(scores, batch[1])
        self.counted.every["recall"].update(scores, batch[1])
        return Net.training_step(self, batch, batch_idx)


def accuracy() -> Metric:
    return MulticlassAccuracy(CLASSES)


REFUSED: dict[str, tuple[Any, str]] = {
    "a part of the batch": (lambda: Masks(accuracy), "dynamic shape"),
    "compute": (lambda: Computes(accuracy), "calls MulticlassAccuracy.compute"),
    "arithmetic": (lambda: Multiplies(accuracy), "computes with what a torchmetric returns"),
    "attribute": (lambda: LooksAt(accuracy), "looks at what MulticlassAccuracy returns"),
    "state": (lambda: ReadsState(accuracy), "hits so far is another"),
    "twice": (lambda: UpdatesTwice(Twice), "both by itself and inside another"),
    "random": (lambda: Metered(lambda: BootStrapper(MulticlassAccuracy(CLASSES))), "trained at once"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_after_the_steps_is_refused(name: str) -> None:
    make, reason = REFUSED[name]
    cohort = Cohort(make(), streams([8, 8, 8]))
    try:
        assert reason in examine(cohort.module, [cohort.optimizer], errands(cohort), True).reason
    finally:
        assert "compute" in vars(next(m for m in cohort.module.modules() if isinstance(m, Metric)))
