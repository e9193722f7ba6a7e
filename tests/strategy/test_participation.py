"""Fits in which not everybody gets through: weights by what was done, and the same bits wherever that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from fedlightning.algorithms import (
    Algorithm,
    FedAvg,
    FedNova,
    FedProx,
    Participation,
    Stragglers,
    WorkerDropout,
)
from fedlightning.strategy import CohortTooSmall, FederatedStrategy, Tolerance
from fedlightning.workers import VirtualWorker
from tests.strategy.quadratic import assert_at, fit_quadratic
from tests.strategy.toys import assert_same_module, fit, loader, trainer

BOB_IS_SLOW = 2  # with this seed, in round 0


@pytest.mark.parametrize(
    ("algorithm", "drop", "end"),
    [
        # From (0, 0), ann's two steps of 1/4 towards (4, 0) end at (7/4, 0), bob's one of 1/2 at (0, 1).
        (FedAvg(), False, (7 / 8, 1 / 2)),
        (FedAvg(), True, (7 / 4, 0.0)),
        # Each step counts alike: 3/2 steps on average, along the mean of (7/8, 0) and (0, 1).
        (FedNova(), False, (21 / 32, 3 / 4)),
        (FedProx(mu=0), False, (7 / 8, 1 / 2)),
    ],
    ids=str,
)
def test_partial_work_counts_as_the_algorithm_has_it(
    algorithm: Algorithm, drop: bool, end: tuple[float, float]
) -> None:
    module, strategy = fit_quadratic(
        rounds=1, seed=BOB_IS_SLOW, algorithm=algorithm, participation=Stragglers(0.5, drop=drop)
    )
    assert_at(module, end)
    (record,) = strategy.history
    assert dict(record.skipped) == ({"bob": "a straggler, whose work is dropped"} if drop else {})
    assert [visit.steps for visit in strategy.history.visits] == ([2] if drop else [2, 1])


def test_a_worker_that_drops_out_has_no_weight_and_comes_back() -> None:
    """Round 0 is ann's: (7/4, 0). From there ann ends at (175/64, 0), bob at (7/16, 3/2)."""
    module, strategy = fit_quadratic(participation=WorkerDropout(trace=[["bob"], []]))
    assert_at(module, ((175 / 64 + 7 / 16) / 2, 3 / 4))
    assert [record.workers for record in strategy.history] == [("ann",), ("ann", "bob")]


def test_a_round_in_which_everybody_drops_out_changes_nothing() -> None:
    module, strategy = fit_quadratic(participation=WorkerDropout(rate=1.0))
    assert_at(module, (0.0, 0.0))
    assert [record.workers for record in strategy.history] == [(), ()]
    with pytest.raises(CohortTooSmall, match="dropped out"):
        fit_quadratic(participation=WorkerDropout(rate=1.0), tolerance=Tolerance(min_cohort=2))


BOTH = [WorkerDropout(rate=0.2), Stragglers(0.5)]
WAYS: dict[str, dict[str, Any]] = {
    "epochs": {"local_epochs": 3},
    "steps": {"local_steps": 3},
    "gradients": {"local_steps": 1, "participation": WorkerDropout(rate=0.4)},
    "dropped": {"local_epochs": 2, "participation": Stragglers(0.5, drop=True)},
}


@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)
def test_it_is_the_same_at_a_trusted_worker_and_after_a_checkpoint(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    def strategy(**more: Any) -> FederatedStrategy:
        return FederatedStrategy(
            **{"workers": 6, "seed": 5, "rounds_per_epoch": 4, "participation": BOTH, **settings, **more}
        )

    each = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    whole, run = fit(strategy(), train=loader(batch_size=3), enable_checkpointing=True, callbacks=[each])
    assert any(record.skipped for record in run.strategy.history)
    trusted, _ = fit(strategy(aggregator=VirtualWorker(id="trusted")), train=loader(batch_size=3))
    assert_same_module(whole, trusted)
    module, other = type(whole)(), trainer(strategy())
    other.fit(
        module, loader(batch_size=3), loader(12, shuffle=False), ckpt_path=str(tmp_path / "step=3.ckpt")
    )
    assert_same_module(whole, module)
    assert list(other.strategy.history) == list(run.strategy.history)


@pytest.mark.parametrize(
    "nothing", [Stragglers(0.0), Stragglers(0.0, drop=True), WorkerDropout(rate=0.0), []]
)
def test_where_nobody_is_lost_the_bits_are_the_usual_ones(nothing: Participation | list[Any]) -> None:
    usual, _ = fit(FederatedStrategy(4, seed=1, local_epochs=2))
    module, _ = fit(FederatedStrategy(4, seed=1, local_epochs=2, participation=nothing))
    assert_same_module(usual, module)


def test_a_worker_that_is_alone_cannot_be_lost() -> None:
    with pytest.raises(ValueError, match="only one worker"):
        fit(FederatedStrategy(1, participation=Stragglers(0.5)))
