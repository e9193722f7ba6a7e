"""Steps that count in torchmetrics are played, and count to the bits of the ordinary ones."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torchmetrics import MeanMetric, Metric, MetricCollection, SumMetric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassPrecision,
    MulticlassRecall,
)
from torchmetrics.wrappers import ClasswiseWrapper
from typing_extensions import override

from fedlightning import FederatedStrategy
from fedlightning.local.metrics import report_states
from fedlightning.local.one_by_one import training
from fedlightning.local.one_by_one.metric_calls import MadeCalls, WithheldCalls, counters_of
from fedlightning.local.one_by_one.step_tapes import StepTapes
from fedlightning.local.vectorised.metric_calls import MetricCall
from fedlightning.strategy import RoundFailed
from fedlightning.workers.payload import payload_bytes
from tests.local.one_by_one.test_taped import assert_same, both, counted_plays
from tests.strategy.test_together import Plain
from tests.strategy.toys import fit, loader


class Remembers(Metric):
    """A user's own metric, with what is no state: a count of calls, which weighs what it is given."""

    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.calls: list[int] = []

    @override
    def update(self, scores: Tensor, weight: float = 1.0) -> None:
        self.calls.append(len(scores))
        self.total += weight * scores.float().mean() * len(self.calls)

    @override
    def compute(self) -> Tensor:
        return self.total / 2


class Keeps(Metric):
    """A user's own metric that keeps what it is given, as it lies in memory."""

    columns: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("columns", [], dist_reduce_fx="cat")
        self.strides: set[tuple[int, ...]] = set()

    @override
    def update(self, column: Tensor, *, other: Tensor) -> None:
        self.strides.add(column.stride())
        self.columns += [column, other]

    @override
    def compute(self) -> Tensor:
        return torch.cat(self.columns).sum()


class Draws(Metric):
    """A user's own metric that draws random numbers."""

    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    @override
    def update(self, scores: Tensor) -> None:
        self.total += torch.rand(()) * scores.float().sum()

    @override
    def compute(self) -> Tensor:
        return self.total


class Counting(Plain):
    """Has metrics of many kinds, some of which a step asks to count."""

    def __init__(self) -> None:
        super().__init__(partial(SGD, lr=0.1))
        self.accuracy = MulticlassAccuracy(3)
        self.mean = MeanMetric()
        self.total = SumMetric()
        self.auroc = MulticlassAUROC(3)
        self.several = MetricCollection(
            [MulticlassPrecision(3), MulticlassRecall(3), MulticlassConfusionMatrix(3)], prefix="train/"
        )
        self.pair = MetricCollection([MulticlassPrecision(3), MulticlassRecall(3)])
        self.classes = ClasswiseWrapper(MulticlassAccuracy(3, average=None))
        self.own = Remembers()
        self.keeps = Keeps()
        self.draws = Draws()
        self.inner = nn.ModuleDict({"accuracy": MulticlassAccuracy(3, average="micro")})

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        scores = self.net(x.double())
        loss = F.cross_entropy(scores, y)
        self.count(scores, y, loss)
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        return loss

    def count(self, scores: Tensor, y: Tensor, loss: Tensor) -> Any:
        """Ask for some; each of those below takes its place."""


def updated(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.accuracy.update(scores.detach(), y)
    self.log("accuracy", self.accuracy, on_step=True, on_epoch=True)


def called(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.accuracy(scores, y)
    self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)


def value_logged(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.log("accuracy", self.accuracy(scores, y), on_step=True, on_epoch=True)


def values_in_turn(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    first = self.mean(loss)
    self.log("first", first)
    second = self.mean(loss * 2, weight=0.5)
    self.log("second", second, batch_size=1)
    self.log_dict({"again": first, "loss": loss, "one": 1.0})
    self.total.update(scores.detach().float().sum())
    self.log("sum", self.total)


def collection_called(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.log_dict(self.pair(scores, y), on_epoch=True)


def collection_updated(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.several.update(scores, y)
    self.pair.update(preds=scores, target=y)
    self.log_dict(self.pair, on_epoch=True)


def lists(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.auroc.update(scores.detach().softmax(1), y)
    self.log("auroc", self.auroc, on_epoch=True)


def class_by_class(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.log_dict(self.classes(scores, y))


def own(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.own(scores.detach(), weight=0.5)
    self.own.update(scores.detach())
    self.log("own", self.own)


def kept(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.keeps.update(scores.detach()[:, 1], other=y[:1].expand(3).double())
    self.log("kept", self.keeps)


def in_a_submodule(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.inner["accuracy"](scores, y)
    self.log("inner", self.inner["accuracy"])


def drawing_last(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.draws.update(scores.detach())
    self.log("drawn", self.draws)


def without_gradients(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    with torch.no_grad():
        self.log("accuracy", self.accuracy(scores, y))


PLAYED = [
    updated,
    called,
    value_logged,
    values_in_turn,
    collection_called,
    collection_updated,
    lists,
    class_by_class,
    own,
    kept,
    in_a_submodule,
    without_gradients,
]


def computed(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.accuracy.update(scores, y)
    self.log("accuracy", self.accuracy.compute())


def emptied(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.accuracy.reset()
    self.accuracy.update(scores, y)


def computed_with(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.log("wrong", 1 - self.accuracy(scores, y))


def given_on(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.mean.update(self.accuracy(scores, y))


def looked_at(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    if self.accuracy(scores, y) > 0.5:
        self.log("good", loss)


def looked_at_unseen(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    accuracy = self.accuracy(scores, y)
    try:
        if accuracy == 0.5:
            self.log("half", loss)
    except RuntimeError:
        self.log("odd", loss)


def told_by_type(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    if isinstance(self.accuracy(scores, y), Tensor):
        self.log("is a tensor", 1.0)


def state_read(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.accuracy.update(scores, y)
    self.log("hits", self.accuracy.tp.double().sum())


def state_read_unseen(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.own.update(scores.detach())
    try:
        self.log("many", float(self.own._update_count > 3))
    except:  # noqa: E722  # that is what some steps do
        self.log("few", 0.0)


def drawn_before(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    self.accuracy.update(scores, y)
    self.log("noise", torch.rand(()))


def otherwise_set(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        self.accuracy.update(scores, y)


REFUSED = [
    computed,
    emptied,
    computed_with,
    given_on,
    looked_at,
    looked_at_unseen,
    told_by_type,
    state_read,
    state_read_unseen,
    drawn_before,
    drawing_last,
    otherwise_set,
]


def counting(count: Callable[..., None]) -> type[Counting]:
    """Return the module whose steps ask for what a function asks for."""
    return type("Counts", (Counting,), {"count": count})


def both_with_states(
    count: Callable[..., None], monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> tuple[list[Any], int]:
    """Fit by both ways, and compare what metrics have come to in each visit."""
    states: list[Any] = []

    def noted(module: Any) -> Any:
        found = report_states(module)
        states.append(found)
        return found

    monkeypatch.setattr(training, "report_states", noted)
    fits, plays = both(counting(count), **settings)
    half = len(states) // 2
    assert half
    for one, other in zip(states[:half], states[half:], strict=True):
        assert [(state.path, state.updates) for state in one] == [
            (state.path, state.updates) for state in other
        ]
        assert sum(payload_bytes(state.values) for state in one)
        for ours, theirs in zip(one, other, strict=True):
            torch.testing.assert_close(ours.values, theirs.values, rtol=0, atol=0)
    (module, _), (other_module, _) = fits
    assert module.own.calls == other_module.own.calls
    assert module.keeps.strides == other_module.keeps.strides
    return fits, plays


@pytest.mark.parametrize("count", PLAYED)
def test_played_steps_count_as_ordinary_ones_do(
    count: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fits, plays = both_with_states(count, monkeypatch)
    assert plays > 20
    assert_same(fits)


@pytest.mark.parametrize("count", REFUSED)
def test_what_a_metric_comes_to_is_not_computed_with(
    count: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fits, plays = both_with_states(count, monkeypatch)
    assert plays == 0
    assert_same(fits)


@pytest.mark.parametrize(("count", "at_once"), [(updated, True), (called, True), (value_logged, False)])
def test_metrics_of_whole_numbers_count_several_batches_at_once(
    count: Callable[..., None], at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    make = MetricCall.make

    def noted(self: MetricCall, tensors: Any, method: str = "") -> Any:
        calls.append(method)
        return make(self, tensors, method)

    monkeypatch.setattr(MetricCall, "make", noted)
    plays = both(counting(count))[1]
    assert (2 * len(calls) < plays) is at_once


def refusing(self: Any, scores: Tensor, y: Tensor, loss: Tensor) -> None:
    # Four classes, in the middle of the visit that is the first one of the second round.
    others = torch.arange(len(y)).expand_as(y)
    self.accuracy.update(scores, torch.where(self.net[0].weight[0, 0] > -0.4915, others, y))


def test_a_metric_that_refuses_a_batch_fails_the_step_of_that_batch() -> None:
    told = [failure_of(refusing, taped=taped) for taped in (False, True)]
    assert told[0] == told[1]
    assert "round 1, local step 7" in told[0][0]


def failure_of(count: Callable[..., None], *, taped: bool) -> tuple[str, str]:
    """Return what a fit says that fails."""
    strategy = FederatedStrategy(workers=3, seed=0)
    with pytest.MonkeyPatch.context() as patched, counted_plays() as plays:
        if not taped:
            patched.setattr(StepTapes, "begin_round", lambda *args: False)
        with pytest.raises(RoundFailed) as failed:
            fit(strategy, module=counting(count), train=loader(70), max_epochs=9)
    assert bool(plays) is taped
    return str(failed.value), str(failed.value.__cause__)


def test_metrics_are_left_as_they_were() -> None:
    # Processes compare a module, packed, before and after a visit.
    module = counting(updated)()
    metrics = counters_of(module)
    before = [list(vars(metric).items()) for metric in metrics]
    for calls in (MadeCalls(metrics, nullcontext), WithheldCalls(metrics, [], lambda tensor: None)):
        with calls.noted():
            pass
    for metric, own in zip(metrics, before, strict=True):
        assert all(map(is_same, vars(metric).items(), own))


def is_same(one: tuple[str, Any], other: tuple[str, Any]) -> bool:
    """Tell whether two attributes are one."""
    return one[0] == other[0] and one[1] is other[1]
