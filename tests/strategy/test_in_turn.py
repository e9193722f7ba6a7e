"""A cohort of whose workers nothing is made trains to the same bits as one visited worker by worker."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adadelta, AdamW, RMSprop
from typing_extensions import override

from fedlightning import FederatedStrategy, Tolerance
from fedlightning.algorithms import FedAvg, FedProx, Median, Stragglers
from fedlightning.callbacks import FederatedCallback
from fedlightning.data import Dirichlet
from fedlightning.local.one_by_one.training import OneByOne
from fedlightning.strategy import RoundFailed, RoundInterrupted
from fedlightning.strategy.cohort_round import CohortRound
from fedlightning.strategy.records import RoundRecord
from tests.strategy.test_together import Plain
from tests.strategy.toys import Classifier, Memo, assert_same_module, fit, loader

MOMENTUM = partial(SGD, lr=0.05, momentum=0.9, weight_decay=1e-3)


@contextmanager
def worker_by_worker() -> Iterator[None]:
    """Let every visit of the block be made by itself, at a worker that is made for it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CohortRound, "_with_nobody_made", lambda self, plan: None)
        yield


@contextmanager
def counted_visits() -> Iterator[list[int]]:
    """Collect the numbers of the visits for which nothing is made."""
    visits: list[int] = []
    visit = OneByOne.visit

    def noted(self: OneByOne, number: int) -> None:
        visits.append(number)
        visit(self, number)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(OneByOne, "visit", noted)
        yield visits


def both(
    make_module: Callable[[], Any] = Classifier, *, samples: int = 37, **settings: Any
) -> list[tuple[Any, Any, Memo]]:
    """Fit by both ways, worker by worker first."""
    trainer = {name: settings.pop(name) for name in [*settings] if name in TRAINER}
    fits = []
    for way in (worker_by_worker, counted_visits):
        with way() as visits:
            memo = Memo()
            strategy = FederatedStrategy(**{"workers": 5, "seed": 0, **settings})
            module, run = fit(strategy, module=make_module, train=loader(samples), logger=memo, **trainer)
        fits.append((module, run.strategy, memo))
    assert visits, "no visit was made without its worker"
    return fits


TRAINER = {"max_epochs", "accumulate_grad_batches", "gradient_clip_val"}


def assert_same_fit(fits: list[tuple[Any, Any, Memo]]) -> None:
    (module, strategy, memo), (other, other_strategy, other_memo) = fits
    assert_same_module(module, other)
    assert memo.entries == other_memo.entries
    assert other_strategy.federation.members.made() == {}
    ours, theirs = other_strategy.history, strategy.history
    assert [*ours.visits] == [*theirs.visits]
    assert [*ours] == [*theirs]
    for name, member in strategy.federation.members.items():
        ledger = other_strategy.federation.members[name].worker.ledger
        assert entries_of(ledger) == entries_of(member.worker.ledger)


def assert_same_states(fits: list[tuple[Any, Any, Memo]]) -> None:
    """Compare what a checkpoint would hold of the workers."""
    (_, strategy, _), (_, other, _) = fits
    assert other.federation.members.made() == {}
    ours, theirs = (one.federation.state_dict(round=99) for one in (other, strategy))
    assert set(ours) == set(theirs)
    torch.testing.assert_close(ours, {name: theirs[name] for name in ours}, rtol=0, atol=0)


def entries_of(ledger: Any) -> list[Any]:
    """Return what has crossed a worker's door since its data and its memory were placed there."""
    return [entry for entry in ledger.entries if entry.round is not None]


class Drawing(Classifier):
    """Draws from all three generators, from NumPy's and Python's only in some steps."""

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if batch_idx % 2:
            loss = loss * (1 + np.random.rand() + random.random())
        return loss * torch.rand(())


class Keeping(Classifier):
    """Keeps a list and a count, which go on from visit to visit, and a buffer that it exchanges."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.losses: list[float] = []
        self.register_buffer("last", torch.zeros(()))

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx) * (1 + 0.01 * self.steps)
        self.steps += 1
        self.losses.append(loss.item())
        self.last = loss.detach().clone()
        return loss


class Silent(Classifier):
    """Logs another name, in another way and of another type, from time to time, and skips steps."""

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        kind = int(10 * float(x[0, 0].abs())) % 4
        if kind == 0:
            self.log("sometimes", loss, reduce_fx="max", on_step=True, on_epoch=True)
            self.log("train/acc", self.train_accuracy)
            self.train_accuracy.update(self.net(x), y)
        if kind == 1:
            self.log("mixed", loss.double())
        else:
            self.log("mixed", loss, batch_size=kind + 1)
        if kind == 2:
            return None
        return loss


class Schedules(Classifier):
    """Changes the learning rate within a visit, which holds for that visit alone."""

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        for group in self.optimizers().param_groups:
            group["lr"] *= 0.5
        return super().training_step(batch, batch_idx)


class Hits(Classifier):
    """Logs whole numbers and truths."""

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        hits = self.net(batch[0]).argmax(1) == batch[1]
        self.log("hits", hits.sum(), reduce_fx="sum")
        self.log("all", hits.all())
        return super().training_step(batch, batch_idx)


MODULES: dict[str, Callable[[], Any]] = {
    "adam": Classifier,
    "sgd": lambda: Classifier(partial(SGD, lr=0.05, weight_decay=1e-2)),
    "momentum": lambda: Classifier(MOMENTUM),
    "adamw": lambda: Classifier(partial(AdamW, lr=0.01, amsgrad=True)),
    "rmsprop": lambda: Classifier(partial(RMSprop, lr=0.01, momentum=0.5)),
    "adagrad": lambda: Classifier(partial(Adadelta, lr=0.01)),
    "no schedule": lambda: Classifier(schedule=False),
    "drawing": Drawing,
    "keeping": Keeping,
    "silent": Silent,
    "schedules": Schedules,
    "hits": Hits,
    "double": lambda: DoubleClassifier(),
}


class DoubleClassifier(Classifier):
    """Trains in double precision."""

    def __init__(self) -> None:
        super().__init__(MOMENTUM)
        self.double()

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return super().training_step([batch[0].double(), batch[1]], batch_idx)

    @override
    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        super().validation_step([batch[0].double(), batch[1]], batch_idx)


@pytest.mark.parametrize("name", MODULES)
def test_modules_and_optimizers(name: str) -> None:
    fits = both(MODULES[name])
    assert_same_fit(fits)
    if name == "keeping":
        assert fits[0][0].losses == fits[1][0].losses


SETTINGS: dict[str, dict[str, Any]] = {
    "epochs": {"local_epochs": 2},
    "steps": {"local_steps": 3, "rounds_per_epoch": 4},
    "cohorts": {"cohort_size": 3, "rounds_per_epoch": 3},
    "more than are named": {"workers": 25, "samples": 90, "max_epochs": 1},
    "in blocks": {"workers": 40, "samples": 130, "max_epochs": 1},
    "uneven shards": {"partition": Dirichlet(0.5, seed=1, min_samples=6), "workers": 4},
    "server": {"server_optimizer": partial(SGD, lr=0.5)},
    "median": {"aggregation": Median()},
    "stragglers": {"local_epochs": 3, "participation": Stragglers(0.6)},
    "uniform weights": {"algorithm": FedAvg(weighting="uniform")},
    "finite": {"tolerance": Tolerance(on_nonfinite="stop")},
    "kept states": {"optimizer_state": "keep", "rounds_per_epoch": 3},
    "kept states of cohorts": {"optimizer_state": "keep", "cohort_size": 3, "rounds_per_epoch": 4},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name: str) -> None:
    assert_same_fit(both(**SETTINGS[name]))


OTHERWISE: dict[str, dict[str, Any]] = {
    "clipping": {"gradient_clip_val": 0.1},
    "accumulation": {"accumulate_grad_batches": 2},
    "a procedure": {"algorithm": FedProx(mu=0.1)},
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_needs_more_is_made_worker_by_worker(name: str) -> None:
    trainer = {key: value for key, value in OTHERWISE[name].items() if key in TRAINER}
    settings = {key: value for key, value in OTHERWISE[name].items() if key not in TRAINER}
    with counted_visits() as visits:
        fit(FederatedStrategy(workers=3, seed=0, **settings), module=Classifier, max_epochs=1, **trainer)
    assert not visits


KEEPING: dict[str, Callable[[], Any]] = {
    "adam": Classifier,
    "sgd": lambda: Classifier(partial(SGD, lr=0.05)),
    "momentum": lambda: Classifier(MOMENTUM),
    "amsgrad": lambda: Classifier(partial(AdamW, lr=0.01, amsgrad=True)),
    "rmsprop": lambda: Classifier(partial(RMSprop, lr=0.01, momentum=0.5)),
    "lists": lambda: Classifier(partial(LBFGS, lr=0.01, max_iter=2)),
    "double": lambda: DoubleClassifier(),
}


@pytest.mark.parametrize("name", KEEPING)
def test_optimizer_states_that_stay_at_workers(name: str) -> None:
    fits = both(KEEPING[name], optimizer_state="keep", cohort_size=3, rounds_per_epoch=3, max_epochs=2)
    assert_same_states(fits)
    assert_same_fit(fits)


@pytest.mark.parametrize("reaction", [{"on_nonfinite": "skip"}, {"on_error": "skip"}, {"retries": 1}])
def test_a_visit_that_fails_leaves_no_state(reaction: dict[str, Any]) -> None:
    def make() -> Classifier:
        return Diverging() if "on_nonfinite" in reaction else Failing(lambda: ValueError("no"), (4,))

    fits = both(make, optimizer_state="keep", tolerance=Tolerance(**reaction), max_epochs=2)
    assert_same_states(fits)
    assert_same_fit(fits)


class Looks(FederatedCallback):
    """Asks for a worker after the first round, which is made for that."""

    @override
    def on_round_end(self, trainer: Any, pl_module: Any, record: RoundRecord) -> None:
        trainer.strategy.federation.members["worker-3"]


@pytest.mark.parametrize("vectorize", [False, 2])
def test_a_worker_that_is_made_goes_on_with_its_state(vectorize: Any) -> None:
    settings: dict[str, Any] = {"optimizer_state": "keep", "vectorize": vectorize, "rounds_per_epoch": 3}
    fits = []
    for callbacks in ([], [Looks()]):
        strategy = FederatedStrategy(5, seed=0, **settings)
        fits.append((*fit(strategy, module=Plain, train=loader(37), callbacks=callbacks), strategy))
    (module, _, strategy), (other, _, looked_at) = fits
    assert strategy.federation.members.made() == {}
    assert list(looked_at.federation.members.made()) == ["worker-3"]
    assert_same_module(module, other)
    states = [one.federation.state_dict(round=99)["worker-3"]["memory"] for one in (strategy, looked_at)]
    torch.testing.assert_close(*states, rtol=0, atol=0)


class Failing(Classifier):
    """Raises in one local step of the fit, or in each of some batches."""

    def __init__(self, error: Callable[[], BaseException], steps: tuple[int, ...]) -> None:
        super().__init__()
        self.count = 0
        self._error = error
        self._failing = steps

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.count += 1
        loss = super().training_step(batch, batch_idx)
        if self.count in self._failing:
            raise self._error()
        return loss


FAILURES: dict[str, dict[str, Any]] = {
    "skipped": {"tolerance": Tolerance(on_error="skip")},
    "retried": {"tolerance": Tolerance(retries=1)},
    "retried in vain": {"tolerance": Tolerance(on_error="skip", retries=1)},
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_that_are_tolerated(name: str) -> None:
    steps = (4, 6) if name == "retried in vain" else (4,)
    fits = both(lambda: Failing(lambda: ValueError("no"), steps), **FAILURES[name])
    assert_same_fit(fits)
    assert fits[0][0].count == fits[1][0].count


class Diverging(Classifier):
    """Has a loss that is no number in one batch of the fit."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.count += 1
        return super().training_step(batch, batch_idx) * (torch.nan if self.count == 3 else 1)


@pytest.mark.parametrize("reaction", ["keep", "skip"])
def test_updates_that_are_not_finite(reaction: Any) -> None:
    fits = both(Diverging, tolerance=Tolerance(on_nonfinite=reaction), max_epochs=1)
    if reaction == "keep":
        (module, *_), (other, *_) = fits
        for tensor, same in zip(module.state_dict().values(), other.state_dict().values(), strict=True):
            torch.testing.assert_close(tensor, same, rtol=0, atol=0, equal_nan=True)
    else:
        assert_same_fit(fits)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_names_its_place_and_leaves_the_module_as_it_was(error: type[BaseException]) -> None:
    told = []
    for way in (worker_by_worker, counted_visits):
        module = Failing(lambda: error("no"), (4,))
        start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        with way():
            failure = failure_of(module)
        place = failure.worker, failure.step, failure.round
        told.append((*place, str(failure), type(failure).__mro__[1:], type(failure.__cause__)))
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, start[name])
    assert told[0] == told[1]
    assert told[0][:3] == ("worker-1", 1, 0)
    assert issubclass(told[0][-1], error)


def failure_of(module: Failing) -> RoundFailed | RoundInterrupted:
    """Return what a fit of a module has failed with."""
    try:
        fit(FederatedStrategy(workers=5, seed=0), module=module, train=loader(37))
    except RoundFailed as failure:
        return failure
    except SystemExit as stopped:  # into which Lightning turns a Ctrl-C
        found: BaseException | None = stopped
        while found is not None and not isinstance(found, RoundInterrupted):
            found = found.__context__
        assert found is not None
        return found
    raise AssertionError("it did not fail")
