from __future__ import annotations

from typing import Any

import lightning as L
import torch

from fedlightning.callbacks.federation import evaluated_workers, federation_of
from fedlightning.strategy import FederatedStrategy
from tests.callbacks.conftest import Fit


def test_workers_are_evaluated_once_until_the_module_changes(fit: Fit, monkeypatch: Any) -> None:
    evaluations: list[str] = []
    evaluate = FederatedStrategy.federation_summary

    def counting(self: FederatedStrategy, **settings: Any) -> Any:
        evaluations.append("evaluated")
        return evaluate(self, **settings)

    monkeypatch.setattr(FederatedStrategy, "federation_summary", counting)

    class Asks(L.Callback):
        def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            federation = federation_of(trainer)
            assert federation is not None
            first = evaluated_workers(federation, pl_module)
            assert evaluated_workers(federation, pl_module) is first
            with torch.no_grad():
                next(pl_module.parameters()).add_(1)
            assert evaluated_workers(federation, pl_module) is not first

    fit(Asks())
    assert len(evaluations) == 2


def test_what_a_worker_holds_is_told_without_evaluating(fit: Fit) -> None:
    strategy = fit().strategy
    bob, alice = strategy.federation_summary(evaluate=False)
    assert (bob.samples, dict(bob.label_counts), bob.metrics) == (6, {0: 4, 1: 2}, {})
    assert bob.data_bytes == 6 * (4 * 4 + 8)
    assert (alice.samples, dict(alice.label_counts)) == (4, {1: 1, 2: 3})
