"""A fit whose workers take their steps together is the fit whose workers take them one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.utils.data import DataLoader
from typing_extensions import override

from fedlightning import FederatedStrategy, Tolerance
from fedlightning.algorithms import FedAvg, FedProx, Median, Stragglers
from fedlightning.algorithms.postprocessing import TopK
from fedlightning.callbacks import FederatedCallback
from fedlightning.data import Dirichlet, FederatedDataLoader, FederatedDataset
from fedlightning.local.vectorised import compiled, trial
from fedlightning.local.vectorised.pace import TOO_SLOW
from fedlightning.strategy.records import RoundRecord, VisitRecord
from fedlightning.workers import AllowAll, KeepData, Rules, VirtualWorker
from tests.strategy.toys import Classifier, Memo, assert_same_module, fit, loader, samples

MOMENTUM = partial(SGD, lr=0.05, momentum=0.9)
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


class Plain(Classifier):
    """The classifier of the other tests in double precision, with a metric in validation only."""

    def __init__(self, make: Callable[..., Any] = MOMENTUM, norm: bool = False) -> None:
        super().__init__(make)
        if not norm:
            self.net[1] = nn.Identity()
        self.double()

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0].double()), batch[1])
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        self.log("train/idx", float(batch_idx))
        return loss

    @override
    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        super().validation_step([batch[0].double(), batch[1]], batch_idx)


def both(
    make_module: Callable[[], Any] = Plain, train: Any = None, **settings: Any
) -> list[tuple[Any, Any, Memo]]:
    """Fit by both ways, the one that takes steps together first."""
    fits = []
    for vectorize in (True, False):
        memo = Memo()
        strategy = FederatedStrategy(**{"workers": 5, "seed": 0, **settings}, vectorize=vectorize)
        module, run = fit(
            strategy, module=make_module, train=loader(37) if train is None else train(), logger=memo
        )
        fits.append((module, run.strategy, memo))
    return fits


def assert_done_together(strategy: Any) -> None:
    found = strategy._run.together.findings
    assert found is not None
    assert found.reason == ""


def assert_same_fit(fits: list[tuple[Any, Any, Memo]]) -> None:
    (module, strategy, memo), (other, other_strategy, other_memo) = fits
    torch.testing.assert_close(module.state_dict(), other.state_dict(), **CLOSE)
    assert [step for step, _ in memo.entries] == [step for step, _ in other_memo.entries]
    for (_, ours), (_, theirs) in zip(memo.entries, other_memo.entries, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
    ours, theirs = strategy.history, other_strategy.history
    assert [(v.round, v.worker, v.samples, v.steps) for v in ours.visits] == [
        (v.round, v.worker, v.samples, v.steps) for v in theirs.visits
    ]
    assert [(v.bytes_up, v.bytes_down) for v in ours.visits] == [
        (v.bytes_up, v.bytes_down) for v in theirs.visits
    ]
    for ours_visit, theirs_visit in zip(ours.visits, theirs.visits, strict=True):
        assert ours_visit.loss == pytest.approx(theirs_visit.loss, rel=1e-10)
        assert ours_visit.metrics == pytest.approx(theirs_visit.metrics, rel=1e-10)


SETTINGS: dict[str, dict[str, Any]] = {
    "epochs": {"local_epochs": 2},
    "steps": {"local_steps": 3, "rounds_per_epoch": 4},
    "cohorts": {"cohort_size": 3},
    "kept momentum": {"optimizer_state": "keep", "rounds_per_epoch": 2},
    "uneven shards": {"partition": Dirichlet(0.5, seed=1), "workers": 4},
    "server": {"server_optimizer": partial(SGD, lr=0.5)},
    "median": {"aggregation": Median()},
    "stragglers": {"local_epochs": 3, "participation": Stragglers(0.6)},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_whole_fit_comes_to_the_same(name: str) -> None:
    fits = both(**SETTINGS[name])
    assert_done_together(fits[0][1])
    assert_same_fit(fits)


@pytest.mark.parametrize("norm", [True, False], ids=["buffers", "no buffers"])
def test_adam_and_modules_with_and_without_buffers(norm: bool) -> None:
    assert_same_fit(both(lambda: Plain(partial(Adam, lr=0.01, eps=1e-3), norm)))


@pytest.mark.parametrize("policy", [AllowAll(), KeepData()], ids=["open", "private"])
def test_every_ledger_has_the_same_entries(policy: Any) -> None:
    ledgers: list[Any] = []

    def train() -> FederatedDataLoader:
        workers = [VirtualWorker(id=f"w{n}", policy=policy) for n in range(3)]
        data = FederatedDataset.from_dataset(samples(20), workers, private=True)
        ledgers.append([worker.ledger for worker in workers])
        return FederatedDataLoader(data, batch_size=4, shuffle=True)

    fits = both(train=train, workers=None)
    assert_done_together(fits[0][1])
    assert_same_fit(fits)
    for ours, theirs in zip(*ledgers, strict=True):
        assert sorted(map(str, ours.rows())) == sorted(map(str, theirs.rows()))
        assert any(row["item"].endswith("train_locally") for row in ours.rows())


@pytest.mark.parametrize("name", ["epochs", "cohorts", "uneven shards"])
def test_workers_of_whom_nothing_was_made_are_found_as_if_they_had_been_visited(name: str) -> None:
    ours, _ = (strategy for _, strategy, _ in both(**SETTINGS[name]))
    theirs = FederatedStrategy(**{"workers": 5, "seed": 0, **SETTINGS[name]})
    fit(theirs, module=Plain, train=loader(37), callbacks=[Listener()])
    assert ours.federation.members.made() == {}
    visited = theirs.federation.members.made()
    assert set(visited) == {visit.worker for visit in theirs.history.visits}
    for worker, member in visited.items():
        rows = ours.federation.members[worker].worker.ledger.rows()
        assert sorted(map(str, rows)) == sorted(map(str, member.worker.ledger.rows()))
    summaries = zip(ours.federation_summary(), theirs.federation_summary(), strict=True)
    assert all(one.sent_bytes == other.sent_bytes for one, other in summaries)


class Listener(FederatedCallback):
    """Hears of visits."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []

    @override
    def on_worker_end(self, trainer: Any, pl_module: Any, visit: VisitRecord) -> None:
        self.heard.append((visit.worker, visit.bytes_up))


class Counter(FederatedCallback):
    """Hears of rounds only."""

    def __init__(self) -> None:
        self.rounds: list[RoundRecord] = []

    @override
    def on_round_end(self, trainer: Any, pl_module: Any, record: RoundRecord) -> None:
        self.rounds.append(record)


def test_who_listens_hears_of_every_visit_and_the_rest_costs_nobody_a_worker() -> None:
    listener, counter = Listener(), Counter()
    strategies = [FederatedStrategy(5, seed=0, vectorize=2) for _ in range(2)]
    for strategy, callback in zip(strategies, (listener, counter), strict=True):
        fit(strategy, module=Plain, callbacks=[callback])
    made = [len(strategy.federation.members.made()) for strategy in strategies]
    assert made == [5, 0]
    assert len(listener.heard) == sum(len(record.workers) for record in counter.rounds)
    for ours, theirs in zip(*(strategy.history for strategy in strategies), strict=True):
        assert (ours.workers, ours.steps, ours.bytes_up) == (theirs.workers, theirs.steps, theirs.bytes_up)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-12)
        assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-12)
        assert ours.spread == pytest.approx(theirs.spread, rel=1e-12)
    assert list(strategies[0].history.visits) == list(strategies[1].history.visits)


def test_one_worker_that_was_made_has_its_account_at_once() -> None:
    strategy = FederatedStrategy(5, seed=0, vectorize=2)

    class Looks(Counter):
        @override
        def on_round_end(self, trainer: Any, pl_module: Any, record: RoundRecord) -> None:
            super().on_round_end(trainer, pl_module, record)
            sent = strategy.federation.members["worker-3"].worker.ledger.sent_bytes
            assert sent == sum(v.bytes_up for v in strategy.history.visits if v.worker == "worker-3")

    looks = Looks()
    fit(strategy, module=Plain, callbacks=[looks], max_epochs=3)
    assert len(looks.rounds) > 1
    assert list(strategy.federation.members.made()) == ["worker-3"]


def test_what_a_worker_has_kept_is_as_private_as_its_data() -> None:
    def train() -> FederatedDataLoader:
        workers = [VirtualWorker(id=f"w{n}", policy=KeepData()) for n in range(2)]
        data = FederatedDataset.from_dataset(samples(20), workers, private=True)
        return FederatedDataLoader(data, batch_size=4)

    for _, strategy, _ in both(train=train, workers=None, optimizer_state="keep"):
        member = strategy.federation.members["w0"]
        host = member.worker._host
        label = host.label_of(member.memory._handle.ref.object_id)
        assert {source.worker for source in label} == {"w0"}


def test_the_same_seed_gives_the_same_bits() -> None:
    one, other = (fit(FederatedStrategy(5, seed=0, vectorize=2), module=Plain)[0] for _ in range(2))
    assert_same_module(one, other)


def test_a_worker_that_is_not_finite_is_left_out() -> None:
    def spoilt() -> Any:
        train = loader(40, shuffle=False)
        train.dataset.tensors[0][3] = torch.inf
        return train

    fits = both(Plain, spoilt, tolerance=Tolerance(on_nonfinite="skip"), local_steps=2)
    assert_done_together(fits[0][1])
    assert_same_fit(fits)
    skipped = [[set(record.skipped) for record in strategy.history] for _, strategy, _ in fits]
    assert skipped[0] == skipped[1]
    assert any(skipped[0])


class Asks(Plain):
    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("as a number", loss.item())
        return loss


class Counting(Plain):
    """Counts hits in training, too."""

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.train_accuracy(self.net(batch[0].double()), batch[1])
        self.log("train/acc", self.train_accuracy, on_step=True, on_epoch=True)
        return super().training_step(batch, batch_idx)


COUNTED: dict[str, dict[str, Any]] = {
    "named": {"rounds_per_epoch": 2},
    "made": {"rounds_per_epoch": 2, "optimizer_state": "keep"},
    "as one": {"workers": 24, "rounds_per_epoch": 2},
    "as one, without some": {"workers": 24, "tolerance": Tolerance(on_nonfinite="skip"), "local_steps": 2},
}


@pytest.mark.parametrize("name", COUNTED)
def test_torchmetrics_count_what_they_count_one_by_one(name: str) -> None:
    def train() -> Any:
        data = samples(90)
        if "tolerance" in COUNTED[name]:
            data.tensors[0][7] = torch.inf
        return DataLoader(data, batch_size=4)

    fits = both(Counting, train, **COUNTED[name])
    assert_done_together(fits[0][1])
    assert_same_fit(fits)
    (_, ours, memo), (_, theirs, _) = fits
    assert [(r.bytes_up, set(r.skipped)) for r in ours.history] == [
        (r.bytes_up, set(r.skipped)) for r in theirs.history
    ]
    assert any("train/acc_epoch" in logged for _, logged in memo.entries)
    named = [set(visit.metrics) >= {"train/acc"} for visit in ours.history.visits]
    assert all(named)
    assert bool(named) == ("workers" not in COUNTED[name])


class Computes(Counting):
    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (1 + self.train_accuracy.compute())


class Deceptive(Plain):
    """Does what cannot be done at once in the second round only, long after any trial."""

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if self.trainer.global_step > 0 and loss.item() > 1e9:
            raise AssertionError
        return loss


class CountsLast(Plain):
    """Counts batches of a size that no trial has seen, and goes by how many there were."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.sizes = 0, list[int]()

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if len(batch[0]) < 4:
            self.last += 1
            self.sizes.append(len(batch[0]))
        return super().training_step(batch, batch_idx) / (1 + self.last)


class CountsLater(CountsLast):
    """Counts batches of the second round only."""

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.trainer.global_step > 0:
            self.sizes.append(len(batch[0]))
        return Plain.training_step(self, batch, batch_idx) / (1 + len(self.sizes))


class Makes(Plain):
    """Makes what steps need when the first one needs it."""

    def __init__(self) -> None:
        super().__init__()
        self.mask: Tensor | None = None
        self.masks = dict[int, Tensor]()

    @cached_property
    def scale(self) -> Tensor:
        return torch.ones((), dtype=torch.float64)

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        size = len(batch[0])
        if self.mask is None or len(self.mask) != size:
            self.mask = torch.ones(size, dtype=torch.float64)
        if size not in self.masks:
            self.masks[size] = torch.ones(size, dtype=torch.float64)
        if not hasattr(self, "last"):
            self.last = nn.Identity()
        loss = self.last(super().training_step(batch, batch_idx)) * self.scale
        return loss * (self.mask * self.masks[size]).mean()


class MakesAndCounts(Makes):
    """Counts batches of a size that no trial has seen, in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = dict[int, int]()

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if len(batch[0]) < 4:
            self.sizes[len(batch[0])] = self.sizes.get(len(batch[0]), 0) + 1
        return super().training_step(batch, batch_idx)


class Subclassed(VirtualWorker):
    """Not quite a virtual worker."""


def test_what_is_made_once_is_made_by_steps_together() -> None:
    fits = both(Makes, rounds_per_epoch=2)
    assert_done_together(fits[0][1])
    assert_same_fit(fits)


def test_what_was_made_and_counted_is_put_back() -> None:
    fits = both(MakesAndCounts)
    (module, strategy, _), (other, *_) = fits
    assert strategy._run.together.findings.reason == "training_step changes self.sizes"
    assert module.sizes == other.sizes
    assert_same_fit(fits)


REASONS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "item": (Asks, {}, ".item()"),
    "later": (Deceptive, {}, ".item()"),
    "size": (CountsLast, {}, "changes self.last"),
    "round": (CountsLater, {}, "changes self.sizes"),
    "metric": (Computes, {}, "calls MulticlassAccuracy.compute"),
    "algorithm": (Plain, {"algorithm": FedProx(mu=0.1)}, "FedProx("),
    "aggregator": (Plain, {"aggregator": VirtualWorker(id="trusted")}, "aggregator works with one visit"),
    "buffers": (Plain, {"algorithm": FedAvg(buffers="reset")}, "buffers='reset'"),
    "postprocess": (Plain, {"postprocess": [TopK(fraction=0.5)]}, "postprocess works with one visit"),
    "worker": (Plain, {"workers": [Subclassed(id="a"), Subclassed(id="b")]}, "'a' is a Subclassed"),
    "policy": (
        Plain,
        {"workers": [VirtualWorker(id="c", policy=Rules()), VirtualWorker(id="d")]},
        "'c' has the policy Rules",
    ),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_cannot_be_done_together_is_done_one_by_one_and_told_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, settings, reason = REASONS[name]
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        fits = both(make, **settings)
    told = [r.message for r in caplog.records if "one worker after the other" in r.message]
    assert len(told) == 1
    assert reason in told[0]
    if name in ("later", "round"):
        assert_same_fit(fits)
    else:
        assert_same_module(fits[0][0], fits[1][0])
    if name in ("size", "round"):
        (module, *_), (other, *_) = fits
        assert (module.last, module.sizes) == (other.last, other.sizes)


@pytest.mark.parametrize("callbacks", [[], ["made"]], ids=["nobody made", "workers made"])
@pytest.mark.parametrize("factor", [0.0, 1e9], ids=["slow", "quick"])
def test_a_round_that_turns_out_slow_is_made_one_by_one(
    callbacks: list[Any], factor: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trial, "LONG_STEP", 10.0)
    monkeypatch.setattr(trial, "seconds_alone", lambda *_: factor)
    fits = []
    for vectorize in ("auto", False):
        strategy = FederatedStrategy(5, seed=0, local_epochs=4, vectorize=vectorize)
        listeners = [Listener() for _ in callbacks]
        with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
            module, _ = fit(strategy, module=Plain, train=loader(37), callbacks=listeners)
        fits.append((module, strategy))
    said = [r.message for r in caplog.records if TOO_SLOW in r.message]
    assert len(said) == (0 if factor else 1)
    found = fits[0][1]._run.together.findings
    assert (found.reason, found.chunk) == (("", 5) if factor else (TOO_SLOW, 0))
    torch.testing.assert_close(fits[0][0].state_dict(), fits[1][0].state_dict(), **CLOSE)
    if not factor:
        assert_same_module(fits[0][0], fits[1][0])


@pytest.mark.parametrize("vectorize", [False, 2])
def test_a_fit_with_compiled_steps_comes_to_the_same(vectorize: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[Any] = []

    def backend(graph: Any, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph

    def make() -> Plain:
        module = Plain()
        module.net[3] = nn.Identity()
        return module

    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "BACKEND", backend)
    fits = []
    for compile in (True, False):
        memo = Memo()
        strategy = FederatedStrategy(5, seed=0, vectorize=vectorize if compile else False, compile=compile)
        module, _ = fit(strategy, module=make, train=loader(40), logger=memo, max_epochs=5)
        fits.append((module, strategy, memo))
    assert_same_fit(fits)
    # Two numbers of batches, which the module logs; chunks of two and, of five workers, of one.
    assert len(graphs) == (4 if vectorize else 2)


@pytest.mark.parametrize("wrong", ["yes", 0, -1, None, 1.5])
def test_a_wrong_wish_is_named(wrong: Any) -> None:
    with pytest.raises(ValueError, match="vectorize must be"):
        FederatedStrategy(2, vectorize=wrong)
