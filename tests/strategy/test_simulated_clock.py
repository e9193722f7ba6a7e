"""Fits on the simulated clock: true bytes, the slowest worker, and who arrives first."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from fedlightning.algorithms import (
    LogNormal,
    Mime,
    OverSelection,
    Participation,
    SimulatedClock,
    Stragglers,
    WorkerDropout,
)
from fedlightning.algorithms.postprocessing import Quantize, TopK
from fedlightning.strategy import FederatedStrategy
from fedlightning.strategy.stopwatch import expected_traffic
from tests.strategy.quadratic import assert_at, fit_quadratic
from tests.strategy.sampling_toys import PlainSGD
from tests.strategy.toys import Classifier, Memo, assert_same_module, fit, loader, trainer

CLOCK = SimulatedClock(seconds_per_step={"ann": 1.0, "bob": 10.0})
DRAWN = SimulatedClock(LogNormal(1.0, 1.0), up=LogNormal(1000, 1.0), down=5000, latency=0.1)


def test_a_round_takes_as_long_as_its_slowest_worker() -> None:
    """Two steps at each; the module is 16 bytes, and a report of 8 more leaves with it."""
    clock = SimulatedClock({"ann": 1.0, "bob": 10.0}, seconds_per_sample=0.5, down=16, up=2, latency=0.25)
    _, strategy = fit_quadratic(clock=clock)
    first = strategy.history.visits[0]
    way = 2 * 0.25 + first.bytes_down / 16 + first.bytes_up / 2
    assert first.bytes_down == 16
    assert [visit.simulated_seconds for visit in strategy.history.visits[:2]] == [3 + way, 21 + way]
    assert [record.simulated_seconds for record in strategy.history] == [21 + way] * 2
    assert strategy.history.simulated_seconds == 2 * (21 + way)
    assert strategy.history.rows()[0]["simulated_seconds"] == 21 + way


@pytest.mark.parametrize(
    "settings",
    [{"local_steps": 2}, {"local_steps": 1}, {"update": "sequential", "local_steps": 2}, {"workers": 1}],
    ids=str,
)
def test_the_clock_changes_no_bit_and_is_logged(settings: dict[str, Any]) -> None:
    usual, _ = fit(FederatedStrategy(**{"workers": 3, "seed": 1, **settings}))
    memo = Memo()
    module, run = fit(FederatedStrategy(**{"workers": 3, "seed": 1, **settings}, clock=DRAWN), logger=memo)
    assert_same_module(usual, module)
    logged = [entry["simulated_seconds"] for _, entry in memo.entries if "simulated_seconds" in entry]
    assert logged[-1] == pytest.approx(run.strategy.history.simulated_seconds, rel=1e-6)
    assert len(logged) == len(run.strategy.history)


def test_a_trainer_that_has_run_by_it_can_be_pickled() -> None:
    _, run = fit(FederatedStrategy(3, seed=1, clock=DRAWN), module=PlainSGD, max_epochs=1)
    again = pickle.loads(pickle.dumps(run.strategy))
    assert again.history.simulated_seconds == run.strategy.history.simulated_seconds > 0


def test_without_a_clock_nothing_is_said_of_it() -> None:
    memo = Memo()
    _, run = fit(FederatedStrategy(3, seed=1), logger=memo)
    assert all("simulated_seconds" not in row for row in run.strategy.history.rows())
    assert not any("simulated_seconds" in entry for _, entry in memo.entries)


def test_what_a_round_asks_beforehand_takes_time_too() -> None:
    def seconds(clock: SimulatedClock, **settings: Any) -> float:
        _, run = fit(FederatedStrategy(3, seed=1, clock=clock, **settings), module=PlainSGD, max_epochs=1)
        return run.strategy.history.simulated_seconds

    assert seconds(SimulatedClock(latency=1.0)) == 2.0
    assert seconds(SimulatedClock(latency=1.0), algorithm=Mime()) == 4.0


@pytest.mark.parametrize(
    ("part", "ends", "closes"),
    [
        # bob would need 20 seconds, and is not waited for: the rounds are ann's two steps each.
        (OverSelection(extra=1.0), [("ann",), ("ann",)], [2.0, 2.0]),
        (OverSelection(extra=0.0, deadline=19.0), [("ann",), ("ann",)], [19.0, 19.0]),
        (OverSelection(extra=0.0, deadline=20.0), [("ann", "bob"), ("ann", "bob")], [20.0, 20.0]),
        (OverSelection(extra=0.0, deadline=1.0), [(), ()], [1.0, 1.0]),
    ],
    ids=str,
)
def test_a_round_ends_with_those_that_arrive_first(
    part: Participation, ends: list[tuple[str, ...]], closes: list[float]
) -> None:
    size = 1 if part == OverSelection(extra=1.0) else None
    module, strategy = fit_quadratic(clock=CLOCK, participation=part, cohort_size=size, rounds_per_epoch=1)
    assert [record.workers for record in strategy.history] == ends
    assert [record.simulated_seconds for record in strategy.history] == closes
    if ends[0] == ("ann",):  # 4 * (1 - (3/4)^4)
        assert_at(module, (175 / 64, 0.0))


def test_a_round_of_whom_some_drop_out_lasts_till_its_deadline() -> None:
    parts = [WorkerDropout(trace=[["bob"]]), OverSelection(extra=0.0, deadline=30.0)]
    _, strategy = fit_quadratic(rounds=1, clock=CLOCK, participation=parts)
    assert strategy.history[0].simulated_seconds == 30.0
    assert dict(strategy.history[0].skipped) == {"bob": "dropped out"}


@pytest.mark.parametrize("chain", [None, [TopK(fraction=0.1)], [Quantize(bits=4)]], ids=str)
def test_the_first_round_expects_the_bytes_that_will_be_moved(chain: Any) -> None:
    """But for names and for what is logged, which are no part of the update."""
    strategy = FederatedStrategy(3, seed=1, clock=SimulatedClock(up=100.0), postprocess=chain)
    module, run = fit(strategy, max_epochs=1, module=PlainSGD)
    (visit, *_), before = run.strategy.history.visits, torch.random.get_rng_state()
    expected = expected_traffic(module, run.optimizers, strategy.settings.postprocess)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert 0 < visit.bytes_up - expected.up < 170
    assert 0 <= visit.bytes_down - expected.down < 20


def test_a_run_goes_on_with_the_same_arrivals_and_bits(tmp_path: Path) -> None:
    def strategy() -> FederatedStrategy:
        parts = [Stragglers(0.3), OverSelection(extra=0.5)]
        return FederatedStrategy(
            8, seed=2, local_epochs=2, cohort_size=4, rounds_per_epoch=4, clock=DRAWN, participation=parts
        )

    each = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole, run = fit(strategy(), train=loader(24, 3), enable_checkpointing=True, callbacks=[each])
    assert all(len(record.workers) == 4 and len(record.skipped) == 2 for record in run.strategy.history)
    for step in (1, 5):
        module, other = Classifier(), trainer(strategy())
        path = str(tmp_path / f"step={step}.ckpt")
        other.fit(module, loader(24, 3), loader(12, shuffle=False), ckpt_path=path)
        assert_same_module(whole, module)
        assert list(other.strategy.history) == list(run.strategy.history)
