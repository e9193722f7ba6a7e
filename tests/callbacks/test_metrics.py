from __future__ import annotations

from typing import Any

import pytest
from lightning.pytorch.callbacks import EarlyStopping

from fedlightning.callbacks import FederatedMetrics
from fedlightning.data import IID, FederatedDataLoader, FederatedDataset
from fedlightning.strategy import FederatedStrategy
from fedlightning.workers import VirtualWorker
from tests.callbacks.conftest import Fit, bob_and_alice
from tests.strategy.toys import Classifier, Memo, assert_same_module, loader, samples, trainer


def logged(memo: Memo) -> dict[int, dict[str, float]]:
    """Return what only a federation has, by step."""
    return {
        step: entry
        for step, entry in memo.entries
        if any(name.startswith(("worker/", "spread/", "comm/")) for name in entry)
    }


@pytest.mark.parametrize("settings", [{}, {"local_steps": 1}])
def test_once_per_round_workers_spread_and_bytes_are_logged(fit: Fit, settings: dict[str, Any]) -> None:
    memo = Memo()
    trainer = fit(FederatedMetrics(), strategy=bob_and_alice(**settings), logger=memo)
    entries = logged(memo)
    assert list(entries) == [0, 1, 2, 3]
    history = trainer.strategy.history
    assert entries[0]["comm/up_mb"] == history[0].bytes_up / 1e6
    assert entries[0]["comm/down_mb"] == history[0].bytes_down / 1e6
    visits = {visit.worker: visit for visit in history.visits[:2]}
    bob, alice = visits["bob"], visits["alice"]
    assert entries[0]["worker/bob/train/acc"] == bob.metrics["train/acc"]
    assert entries[0]["worker/alice/train/loss"] == alice.metrics["train/loss"]
    accuracies = sorted((bob.metrics["train/acc"], alice.metrics["train/acc"]))
    assert entries[0]["spread/train/acc_min"] == accuracies[0]
    assert entries[0]["spread/train/acc_p10"] == pytest.approx(0.9 * accuracies[0] + 0.1 * accuracies[1])
    assert entries[0]["spread/train/acc_std"] == pytest.approx((accuracies[1] - accuracies[0]) / 2)
    assert any("train/loss_step" in entry for _, entry in memo.entries), "the user's names stay"


def test_a_large_cohort_is_logged_by_its_spread(fit: Fit) -> None:
    memo = Memo()
    fit(FederatedMetrics(max_workers=1), logger=memo)
    names = set(logged(memo)[0])
    assert not any(name.startswith("worker/") for name in names)
    assert {"spread/train/acc_min", "comm/up_mb"} <= names


def test_every_part_can_be_switched_off(fit: Fit) -> None:
    memo = Memo()
    fit(FederatedMetrics(workers=False, spread=False), logger=memo)
    assert set(logged(memo)[0]) == {"comm/up_mb", "comm/down_mb"}
    memo = Memo()
    fit(FederatedMetrics(comm=False), strategy=bob_and_alice(update="sequential"), logger=memo)
    assert set(logged(memo)[0]) == {"worker/alice/train/loss", "worker/alice/train/idx"}


def test_a_module_that_logs_nothing_has_its_loss(fit: Fit) -> None:
    class Quiet(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.net(batch[0]).square().mean()

    memo = Memo()
    fit(FederatedMetrics(), module=Quiet, logger=memo)
    assert {"worker/bob/loss", "spread/loss_min"} <= set(logged(memo)[0])


def test_the_spread_can_be_monitored(fit: Fit) -> None:
    trainer = fit(FederatedMetrics(), EarlyStopping("spread/train/acc_min", patience=10, mode="max"))
    spread = trainer.strategy.history[-1].spread["train/acc_min"]
    assert float(trainer.callback_metrics["spread/train/acc_min"]) == pytest.approx(spread)


@pytest.mark.parametrize("update", ["averaged", "sequential"])
@pytest.mark.parametrize("settings", [{"local_steps": 1}, {"local_steps": 2}])
def test_a_run_has_the_same_bits_with_and_without(fit: Fit, update: str, settings: dict[str, Any]) -> None:
    def strategy() -> FederatedStrategy:
        return bob_and_alice(update=update, **settings)

    plain, followed = fit(strategy=strategy()), fit(FederatedMetrics(), strategy=strategy(), logger=Memo())
    assert_same_module(plain.lightning_module, followed.lightning_module)


def test_logs_nothing_without_a_federation(fit: Fit) -> None:
    memo = Memo()
    fit(FederatedMetrics(), strategy="auto", logger=memo)
    assert logged(memo) == {}


def test_a_validation_at_the_workers_is_logged_worker_by_worker() -> None:
    workers = [VirtualWorker(id="bob"), VirtualWorker(id="alice")]
    data = FederatedDataset.from_dataset(samples(12), workers, IID(seed=0))
    memo = Memo()
    run = trainer(
        FederatedStrategy(workers, seed=0), callbacks=[FederatedMetrics()], logger=memo, max_epochs=1
    )
    run.fit(Classifier(), loader(12), FederatedDataLoader(data, batch_size=4))
    step, entry = next((step, entry) for step, entry in memo.entries if "worker/bob/val/acc" in entry)
    assert step == run.global_step
    accuracies = [entry["worker/bob/val/acc"], entry["worker/alice/val/acc"]]
    assert entry["spread/val/acc_min"] == min(accuracies)
    assert "comm/up_mb" not in entry
