"""Fits with an asynchronous server: numbers worked by hand, cases that are something else, and resumes."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from fedlightning.algorithms import (
    Asynchronous,
    Constant,
    FedAsync,
    FedAvg,
    FedBN,
    FedBuff,
    FedProx,
    LogNormal,
    Median,
    Polynomial,
    RoundRobin,
    Scaffold,
    SimulatedClock,
)
from fedlightning.callbacks import FederatedCallback
from fedlightning.strategy import FederatedStrategy, NotFederatable, RoundFailed, Tolerance, replay
from fedlightning.strategy.records import VisitRecord
from tests.strategy.quadratic import assert_at, fit_quadratic
from tests.strategy.test_tolerance import Fails
from tests.strategy.toys import Classifier, Memo, assert_same_module, fit, loader, trainer

# ann's two steps take two seconds, bob's five.
UNEVEN = SimulatedClock(seconds_per_step={"ann": 1.0, "bob": 2.5})
DRAWN = SimulatedClock(LogNormal(1.0, 1.0), up=LogNormal(1000, 1.0), down=5000)

# From x, ann's two steps of 1/4 along x - (4, 0) end at 9/16 x + (7/4, 0); bob's, along 2 (x - (0, 2)), at
# 1/4 x + (0, 3/2). ann arrives after 2 s, 4 s, 6 s; bob, with version 0, after 5 s.


@pytest.mark.parametrize(
    ("server", "ends"),
    [
        # x1 = (7/8, 0): half of ann's (7/4, 0).
        # x2 = half of x1 and half of ann's 9/16 x1 + (7/4, 0) = (287/128, 0).
        # x3: bob, two updates late, counts 1/2 * 1/3: 5/6 x2 + 1/6 (0, 3/2).
        (FedAsync(alpha=0.5, staleness=Polynomial(a=1.0)), [(7 / 8, 0), (399 / 256, 0), (665 / 512, 1 / 4)]),
        # x1 = (7/4, 0); x2 = 9/16 x1 + (7/4, 0) = (175/64, 0); x3 = x2 + 1/sqrt(3) of bob's way from 0.
        (FedBuff(buffer=1), [(7 / 4, 0), (175 / 64, 0), (175 / 64, 1.5 / 3**0.5)]),
    ],
    ids=str,
)
def test_three_updates_of_the_server_are_those_worked_by_hand(
    server: Asynchronous, ends: list[tuple[float, float]]
) -> None:
    for rounds, end in enumerate(ends, start=1):
        module, strategy = fit_quadratic(rounds=rounds, rounds_per_epoch=1, clock=UNEVEN, asynchronous=server)
        assert_at(module, end)
    assert [record.workers for record in strategy.history] == [("ann",), ("ann",), ("bob",)]
    assert [record.simulated_seconds for record in strategy.history] == [2.0, 2.0, 1.0]
    assert [visit.staleness for visit in strategy.history.visits] == [0, 0, 2]


def test_a_buffer_of_two_waits_for_both_and_steps_along_their_mean() -> None:
    """Both arrive with version 0: the mean of (7/4, 0) and (0, 3/2); the server goes twice as far."""
    server = {"asynchronous": FedBuff(buffer=2), "server_optimizer": partial(torch.optim.SGD, lr=2.0)}
    module, strategy = fit_quadratic(rounds=1, clock=UNEVEN, **server)
    assert_at(module, (7 / 4, 3 / 2))
    assert strategy.history.simulated_seconds == 5.0


WAYS: dict[str, dict[str, Any]] = {
    "all": {"workers": 4, "asynchronous": FedBuff(buffer=4), "clock": DRAWN},
    "cohorts, all alike": {
        "workers": 6,
        "cohort_size": 3,
        "rounds_per_epoch": 4,
        "asynchronous": FedBuff(buffer=3),
    },
    "kept state, several steps": {
        "workers": 3,
        "local_steps": 2,
        "optimizer_state": "keep",
        "algorithm": FedProx(mu=0.1),
        "asynchronous": FedBuff(buffer=3, staleness=Constant()),
        "server_optimizer": partial(torch.optim.Adam, lr=0.01),
    },
    "median": {"workers": 3, "asynchronous": FedBuff(buffer=3), "aggregation": Median()},
}


@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)
def test_a_buffer_of_the_cohort_without_delay_is_the_synchronous_round(settings: dict[str, Any]) -> None:
    usual = {name: value for name, value in settings.items() if name not in ("asynchronous", "clock")}
    expected, before = Memo(), Memo()
    synchronous, _ = fit(FederatedStrategy(**usual, seed=1), train=loader(24, 2), logger=expected)
    module, run = fit(FederatedStrategy(**settings, seed=1), train=loader(24, 2), logger=before)
    assert_same_module(synchronous, module)
    if "clock" not in settings:
        assert expected.entries == before.entries
    assert {visit.staleness for visit in run.strategy.history.visits} == {0}


def test_one_worker_at_a_time_taken_as_it_arrives_is_sequential_training() -> None:
    common: dict[str, Any] = {"workers": 3, "seed": 1, "local_steps": 2, "optimizer_state": "reset"}
    common |= {"rounds_per_epoch": 6, "sampling": RoundRobin(), "cohort_size": 1}
    in_turn, _ = fit(FederatedStrategy(**common, update="sequential"), train=loader(24, 4))
    module, _ = fit(FederatedStrategy(**common, asynchronous=FedAsync(alpha=1.0)), train=loader(24, 4))
    assert_same_module(in_turn, module)


@pytest.mark.parametrize("server", [FedAsync(alpha=1.0), FedBuff(buffer=1)], ids=str)
def test_a_worker_that_is_alone_trains_as_it_would_in_sequence(server: Asynchronous) -> None:
    common = {"workers": 1, "seed": 1, "local_steps": 2, "optimizer_state": "reset"}
    alone, _ = fit(FederatedStrategy(**common, update="sequential"))
    assert_same_module(alone, fit(FederatedStrategy(**common, asynchronous=server))[0])


RESUMED: dict[str, dict[str, Any]] = {
    "FedBuff": {"asynchronous": FedBuff(buffer=2), "cohort_size": 4},
    "FedAsync": {"asynchronous": FedAsync(staleness=Polynomial(1.0)), "optimizer_state": "keep"},
    "personal layers": {"asynchronous": FedBuff(buffer=3), "algorithm": FedBN(), "cohort_size": 5},
}


@pytest.mark.parametrize("settings", RESUMED.values(), ids=RESUMED)
def test_a_run_that_was_cut_goes_on_with_those_under_way(settings: dict[str, Any], tmp_path: Path) -> None:
    def strategy() -> FederatedStrategy:
        return FederatedStrategy(6, seed=2, local_epochs=1, rounds_per_epoch=6, clock=DRAWN, **settings)

    each = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole, run = fit(strategy(), train=loader(24, 2), enable_checkpointing=True, callbacks=[each])
    assert max(visit.staleness or 0 for visit in run.strategy.history.visits) > 1
    for step in (2, 6, 9):
        path = tmp_path / f"step={step}.ckpt"
        saved = torch.load(path, weights_only=True)["federation"]
        under_way = saved["state"]["flights"]["under_way"]
        assert set(saved["versions"]) == {version for _, _, version, _, _ in under_way}
        module, other = Classifier(), trainer(strategy())
        other.fit(module, loader(24, 2), loader(12, shuffle=False), ckpt_path=str(path))
        assert_same_module(whole, module)
        assert list(other.strategy.history) == list(run.strategy.history)


class Listens(FederatedCallback):
    """Keep the records of visits."""

    def __init__(self) -> None:
        self.records: list[VisitRecord] = []

    def on_worker_end(self, trainer: L.Trainer, pl_module: L.LightningModule, record: VisitRecord) -> None:
        self.records.append(record)


def test_a_visit_that_began_with_an_earlier_version_is_replayed_as_it_was(tmp_path: Path) -> None:
    def strategy() -> FederatedStrategy:
        return FederatedStrategy(6, seed=2, rounds_per_epoch=12, clock=DRAWN, asynchronous=FedAsync())

    each = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    _, run = fit(strategy(), train=loader(24, 2), enable_checkpointing=True, callbacks=[each], max_epochs=1)
    late = next(visit for visit in run.strategy.history.visits if (visit.staleness or 0) > 1)
    heard = Listens()
    replay(
        trainer(strategy(), callbacks=[heard]),
        Classifier(),
        tmp_path / f"step={late.round}.ckpt",
        worker=late.worker,
        train_dataloaders=loader(24, 2),
    )
    assert heard.records == [late]


def test_no_more_versions_are_kept_than_workers_are_under_way() -> None:
    settings: dict[str, Any] = {"asynchronous": FedAsync(), "cohort_size": 3, "clock": DRAWN}
    _, run = fit(FederatedStrategy(6, seed=2, rounds_per_epoch=20, **settings), train=loader(24, 2))
    assert len(run.strategy._this_run.versions) <= 3


def test_a_worker_that_fails_is_left_out_and_its_version_with_it() -> None:
    settings: dict[str, Any] = {"asynchronous": FedAsync(), "clock": DRAWN, "seed": 2, "rounds_per_epoch": 6}
    with pytest.warns(UserWarning, match="left out of the round"):
        _, run = fit(
            FederatedStrategy(4, tolerance=Tolerance(on_error="skip", min_cohort=0), **settings),
            module=partial(Fails, {2}),
            train=loader(24, 2),
        )
    assert any(record.skipped for record in run.strategy.history)
    with pytest.raises(RoundFailed):
        fit(FederatedStrategy(4, **settings), module=partial(Fails, {2}), train=loader(24, 2))


def test_visits_that_cannot_be_made_together_are_made_one_by_one_with_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings: dict[str, Any] = {"asynchronous": FedBuff(buffer=2), "clock": DRAWN, "seed": 2}
    expected, _ = fit(FederatedStrategy(4, **settings), train=loader(24, 2))
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        module, _ = fit(FederatedStrategy(4, vectorize=True, **settings), train=loader(24, 2))
    assert "FedBuff works with one visit at a time" in caplog.text
    assert_same_module(expected, module)


def test_an_algorithm_whose_server_keeps_something_is_refused_before_any_work() -> None:
    with pytest.raises(NotFederatable, match="Scaffold is about rounds that all workers begin at once"):
        fit_quadratic(algorithm=Scaffold(), asynchronous=FedBuff(buffer=2))
    with pytest.raises(ValueError, match="buffer=3, and at most 2 workers are under way"):
        fit_quadratic(algorithm=FedAvg(), asynchronous=FedBuff(buffer=3))
