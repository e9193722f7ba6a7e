"""What a round leaves for people holds what the workers' policies let leave, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from fedlightning.callbacks import FederationTable
from fedlightning.strategy import FederatedStrategy, VisitRecord
from fedlightning.strategy.reporting import metrics_or_losses, spread_of
from fedlightning.workers import AllowAll, KeepData, VirtualWorker
from tests.strategy.toys import fit


def test_spread_by_hand() -> None:
    """Of 25 workers with 0, 1, 4, ... 576, in no order: a tenth of them is three."""
    values = [number**2 for number in range(25)]
    spread = spread_of([{"acc": float(value)} for value in values[::-1]])
    assert spread == {
        "acc_min": 0.0,
        "acc_p10": pytest.approx(np.percentile(values, 10)),
        "acc_median": 144.0,
        "acc_std": pytest.approx(np.std(values)),
        "acc_low10": pytest.approx((0 + 1 + 4) / 3),
        "acc_high10": pytest.approx((484 + 529 + 576) / 3),
        "acc_gap": 576.0,
    }


def test_one_worker_has_no_spread() -> None:
    assert spread_of([{"acc": 0.5}]) == {}


def test_a_metric_called_loss_is_not_mixed_with_losses_of_workers_that_log_nothing() -> None:
    def visited(worker: str, metrics: dict[str, float]) -> VisitRecord:
        return VisitRecord(0, worker, 10, 1, 0.5, metrics, 100, 200)

    some, none = visited("alice", {"loss": 2.0}), visited("bob", {})
    assert metrics_or_losses([some, none]) == [{"loss": 2.0}, {}]
    assert metrics_or_losses([none, none]) == [{"loss": 0.5}, {"loss": 0.5}]


def test_label_counts_stay_where_private_data_stays(capsys: pytest.CaptureFixture[str]) -> None:
    alice, bob = VirtualWorker(id="alice", policy=KeepData()), VirtualWorker(id="bob", policy=AllowAll())
    strategy = FederatedStrategy([alice, bob])
    fit(strategy, callbacks=[FederationTable()], max_epochs=1)
    of_alice, of_bob = strategy.federation_summary(evaluate=False)
    assert of_alice.label_counts == {}
    assert sum(of_bob.label_counts.values()) == of_bob.samples == 15
    assert of_alice.data_bytes > 0
    assert "alice" in capsys.readouterr().out
