"""Every byte that passes a worker's door is entered, with the rule by which it passed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedlightning.workers import KeepData, RefusedByPolicy, VirtualWorker, in_round, payload_bytes


def test_traffic_is_entered_with_round_and_rule() -> None:
    worker = VirtualWorker(id="bob", policy=KeepData())
    scans = worker.register(torch.ones(100), description="scans")
    with in_round(2):
        worker.get(worker.send(nn.Linear(3, 2)))
        with pytest.raises(RefusedByPolicy):
            scans.get()
    assert worker.ledger.received_bytes == worker.ledger.sent_bytes == 8 * 4
    table = [line.split(maxsplit=7) for line in str(worker.ledger).splitlines()]
    assert table[1:] == [
        ["received", "received", "Linear", "bob", "2", "1", "32"],
        ["sent", "module", "Linear", "controller", "2", "1", "32", "module may leave"],
        ["refused", "data", "scans", "controller", "2", "1", "400", "private data stays at its worker"],
    ]


def test_alike_entries_are_summed() -> None:
    worker = VirtualWorker(id="bob")
    for _ in range(50):
        worker.send(torch.ones(2)).get()
    assert sorted(worker.ledger.entries.values()) == [(50, 400), (50, 400)]


def test_payloads_are_counted_as_they_would_be_sent() -> None:
    module = nn.BatchNorm1d(3)
    assert payload_bytes(module) == 4 * 3 * 4 + 8
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    assert payload_bytes(optimizer) == 0
    module(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    assert payload_bytes(optimizer) == 2 * 3 * 4
    assert payload_bytes({"a": [torch.ones(2, dtype=torch.float64), 1.0], "b": (True, "xy")}) == 36
    data = torch.utils.data.TensorDataset(torch.ones(10, 2), torch.ones(10))
    assert payload_bytes(torch.utils.data.Subset(data, [1, 2])) == 2 * 3 * 4
    assert payload_bytes(object()) == 0
