"""Other systems train what the loop by hand does, where they are installed; where not, that is said."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from benchmarks import simulation
from benchmarks.peers import PEERS
from benchmarks.peers.peer import Peer, Took
from benchmarks.workloads import OPTIMIZERS, Orders, Workload, by_hand, logistic_regression

TINY = Workload("tiny", logistic_regression, (60,), 6, 5, 3, 3, 2, 1.0, 1.0, 1.0)
MISSING = Peer("nowhere", "nowhere", "no-package-has-this-name")


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_trains_on_the_same_samples_in_the_same_order(name: str) -> None:
    peer = PEERS[name]
    if peer.version is None:
        pytest.skip(f"{peer.package} is not installed")
    work = TINY if peer.takes(TINY) else replace(TINY, cohort=TINY.workers)
    assert peer.takes(work)
    dataset = work.dataset()
    orders = Orders(work, dataset)
    loop, net = work.net(), work.net()
    by_hand(work, loop, OPTIMIZERS["sgd"], dataset, orders)
    peer.load()(work, net, dataset, orders)
    for expected, theirs, start in zip(
        loop.parameters(), net.parameters(), TINY.net().parameters(), strict=True
    ):
        torch.testing.assert_close(theirs, expected, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(theirs, start, atol=1e-4)


def test_peers_have_rows_where_they_are_installed_and_are_skipped_where_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = PEERS["trainer"]
    peers = {"trainer": trainer, "missing": MISSING, "few": replace(trainer, way="of few", most_workers=5)}
    monkeypatch.setattr(simulation, "WORKLOADS", {"W1": TINY})
    monkeypatch.setattr(simulation, "PEERS", peers)
    monkeypatch.setattr(sys, "argv", ["simulation", "W1", "--quick", "--peers"])
    simulation.main()
    missing, few, *table = capsys.readouterr().out.splitlines()
    assert missing == "skipped: missing needs the package no-package-has-this-name, which is not installed"
    assert few == "skipped: tiny of few: at most 5 workers, all in each round"
    (agreement,) = (line for line in table if "tiny, sgd by a new Trainer per visit: final losses" in line)
    assert agreement.endswith("met")


def test_what_a_peer_does_once_is_told_apart_from_its_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(work: Workload, net: nn.Module, dataset: TensorDataset, orders: Orders) -> Took:
        by_hand(work, net, OPTIMIZERS["sgd"], dataset, orders)
        return Took(rounds=1e6, once=12.0)

    monkeypatch.setitem(sys.modules, "benchmarks.peers.elsewhere", SimpleNamespace(train=train))
    rows = simulation.measured(TINY, ["sgd"], 1, peers=[Peer("elsewhere", "elsewhere")])
    found = {row.what: row.spread.middle for row in rows}
    assert found["tiny, sgd elsewhere: rounds beside the loop by hand's"] > 1e4
    assert found["tiny, sgd elsewhere: once, seconds"] == 12
    assert found["tiny, sgd elsewhere: final losses differ by"] == 0
    assert found["tiny, sgd: beside the loop by hand"] < 1e4
