"""What a round leaves for people holds what the workers' policies let leave, and no more."""

from __future__ import annotations

import pytest

from fedlightning.callbacks import FederationTable
from fedlightning.strategy import FederatedStrategy
from fedlightning.workers import AllowAll, KeepData, VirtualWorker
from tests.strategy.toys import fit


def test_label_counts_stay_where_private_data_stays(capsys: pytest.CaptureFixture[str]) -> None:
    alice, bob = VirtualWorker(id="alice", policy=KeepData()), VirtualWorker(id="bob", policy=AllowAll())
    strategy = FederatedStrategy([alice, bob])
    fit(strategy, callbacks=[FederationTable()], max_epochs=1)
    of_alice, of_bob = strategy.federation_summary(evaluate=False)
    assert of_alice.label_counts == {}
    assert sum(of_bob.label_counts.values()) == of_bob.samples == 15
    assert of_alice.data_bytes > 0
    assert "alice" in capsys.readouterr().out
