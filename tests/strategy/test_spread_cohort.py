"""A cohort in columns that is spread over processes comes to what it comes to in one."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.utils.data import DataLoader

from fedlightning import FederatedStrategy, Tolerance
from fedlightning.algorithms import Median
from fedlightning.local.vectorised import compiled, trial
from fedlightning.local.vectorised.pace import TOO_SLOW
from fedlightning.strategy.errors import RoundFailed
from fedlightning.strategy.spread import Spread
from tests.strategy.spread_toys import Batchable, Dies, Raises, TracedInProcesses, both
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, samples, trainer

pytestmark = pytest.mark.xdist_group("strategy processes")


@pytest.fixture
def nobody_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("members were made")

    monkeypatch.setattr(Spread, "carry_out", refused)


COHORTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "in turn": (Classifier, {}),
    "in turn, plain steps": (partial(Classifier, partial(SGD, lr=0.05)), {"workers": 70}),
    "in turn, every update by itself": (Classifier, {"aggregation": Median()}),
    "together": (Batchable, {"vectorize": 7}),
    "together, every update by itself": (Batchable, {"vectorize": 7, "aggregation": Median()}),
    "together, with torchmetrics": (Classifier, {"vectorize": 7}),
    "together, with torchmetrics counted as one": (Classifier, {"vectorize": 7, "workers": 22}),
}


@pytest.mark.usefixtures("nobody_is_made")
@pytest.mark.parametrize("name", COHORTS)
def test_bits_logs_and_records_are_those_of_one_process(name: str) -> None:
    make, settings = COHORTS[name]
    (module, strategy, memo), (other, spread, other_memo) = both(
        make, train=lambda: loader(150), **{"rounds_per_epoch": 3, **settings}
    )
    assert_same_module(module, other)
    assert memo.entries == other_memo.entries
    assert strategy.history.visits == spread.history.visits
    assert list(strategy.history) == list(spread.history)
    names = list(strategy.federation.samples)[:3]
    for one, two in zip(*([s.federation.members[n] for n in names] for s in (strategy, spread)), strict=True):
        assert sorted(map(str, one.worker.ledger.rows())) == sorted(map(str, two.worker.ledger.rows()))


@pytest.mark.usefixtures("nobody_is_made")
def test_bits_of_compiled_steps_are_those_of_one_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "BACKEND", "eager")  # which rounds as steps do that are not compiled
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        (module, *_), (other, *_) = both(
            partial(TracedInProcesses, tmp_path / "traced"),
            train=lambda: loader(160),
            vectorize=20,
            rounds_per_epoch=3,
            compile=True,
        )
    assert (tmp_path / "traced").exists()
    assert "does not compile" not in caplog.text
    assert_same_module(module, other)


def spoilt() -> Any:
    data = samples(150)
    data.tensors[0][3] = torch.inf
    return DataLoader(data, batch_size=4)


@pytest.mark.usefixtures("nobody_is_made")
def test_a_chunk_with_a_visit_that_is_not_finite_counts_without_it() -> None:
    (module, strategy, _), (other, spread, _) = both(
        Batchable, train=spoilt, vectorize=7, tolerance=Tolerance(on_nonfinite="skip")
    )
    assert len(spread.history[0].skipped) == 1
    assert strategy.history[0].skipped == spread.history[0].skipped
    assert_same_module(module, other)


def test_what_stays_at_workers_is_trained_one_by_one_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        fit(
            FederatedStrategy(4, seed=0, optimizer_state="keep", vectorize=True, processes=2),
            module=Batchable,
        )
    assert "processes do that at workers made from a number" in caplog.text


class FailsTogether(Batchable):
    """Raise where a step is taken for several workers at once, but not in a trial of two."""

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        if batch_idx and torch._C._functorch.is_batchedtensor(loss):
            raise ValueError("no")
        return loss


@pytest.mark.usefixtures("nobody_is_made")
def test_visits_that_fail_together_in_a_process_are_made_one_by_one() -> None:
    (module, _, _), (other, _, _) = both(FailsTogether, train=lambda: loader(150), vectorize=7, workers=10)
    assert_same_module(module, other)


@pytest.mark.usefixtures("nobody_is_made")
def test_visits_that_turn_out_slow_in_a_process_are_made_one_by_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trial, "LONG_STEP", 10.0)
    monkeypatch.setattr(trial, "seconds_alone", lambda *_: 0.0)
    with caplog.at_level("INFO"):
        (module, _, _), (other, _, _) = both(
            Batchable, train=lambda: loader(150), vectorize="auto", workers=10
        )
    assert_same_module(module, other)
    assert caplog.text.count(TOO_SLOW) == 2


def marked() -> Any:
    """Return samples, at one of which some modules do odd things."""
    data = samples(150)
    data.tensors[0][70, 0] = 7.0
    return DataLoader(data, batch_size=4)


@pytest.mark.usefixtures("nobody_is_made")
def test_a_visit_that_raises_is_named_as_in_one_process() -> None:
    said = []
    for count in (None, 2):
        strategy = FederatedStrategy(40, seed=0, processes=count)
        with pytest.raises(RoundFailed) as caught:
            trainer(strategy).fit(Raises(), marked())
        entries = [member.worker.ledger.rows() for member in strategy.federation.members.values()]
        said.append((str(caught.value), [sorted(map(str, rows)) for rows in entries]))
    assert said[0] == said[1]
    assert any(said[0][1])


@pytest.mark.usefixtures("nobody_is_made")
def test_a_visit_that_raises_may_be_left_out() -> None:
    tolerance = Tolerance(on_error="skip", retries=1)
    (module, strategy, _), (other, spread, _) = both(Raises, train=marked, tolerance=tolerance)
    assert_same_module(module, other)
    assert strategy.history[0].skipped
    assert [record.skipped for record in strategy.history] == [record.skipped for record in spread.history]


@pytest.mark.usefixtures("nobody_is_made")
def test_the_worker_of_a_process_that_ends_is_named() -> None:
    strategy = FederatedStrategy(40, seed=0, processes=2)
    with pytest.raises(RoundFailed, match="ended by signal 9") as caught:
        trainer(strategy).fit(Dies(), marked())
    with pytest.raises(RoundFailed) as expected:
        trainer(FederatedStrategy(40, seed=0)).fit(Raises(), marked())
    names = list(strategy.federation.samples)
    assert caught.value.kind == "lost"
    # Of a block of two, whose process has ended, the first is named.
    assert names.index(expected.value.worker) - names.index(caught.value.worker) in (0, 1)
