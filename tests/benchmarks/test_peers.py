"""Other systems train what the loop by hand does, where they are installed; where not, that is said."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks import simulation
from benchmarks.peers import PEERS
from benchmarks.peers.peer import Peer
from benchmarks.workloads import OPTIMIZERS, Orders, Workload, by_hand, logistic_regression

TINY = Workload("tiny", logistic_regression, (60,), 6, 5, 3, 3, 2, 1.0, 1.0, 1.0)
MISSING = Peer("nowhere", "nowhere", "no-package-has-this-name")


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_trains_on_the_same_samples_in_the_same_order(name: str) -> None:
    peer = PEERS[name]
    if peer.version is None:
        pytest.skip(f"{peer.package} is not installed")
    dataset = TINY.dataset()
    orders = Orders(TINY, dataset)
    loop, net = TINY.net(), TINY.net()
    by_hand(TINY, loop, OPTIMIZERS["sgd"], dataset, orders)
    peer.load()(TINY, net, dataset, orders)
    for expected, theirs, start in zip(
        loop.parameters(), net.parameters(), TINY.net().parameters(), strict=True
    ):
        torch.testing.assert_close(theirs, expected, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(theirs, start, atol=1e-4)


def test_peers_have_rows_where_they_are_installed_and_are_skipped_where_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(simulation, "WORKLOADS", {"W1": TINY})
    monkeypatch.setattr(simulation, "PEERS", {"trainer": PEERS["trainer"], "missing": MISSING})
    monkeypatch.setattr(sys, "argv", ["simulation", "W1", "--quick", "--peers"])
    try:
        simulation.main()
    finally:
        torch.set_num_threads(threads)
    told, *table = capsys.readouterr().out.splitlines()
    assert told == "skipped: missing needs the package no-package-has-this-name, which is not installed"
    (agreement,) = (line for line in table if "tiny, sgd by a new Trainer per visit: final losses" in line)
    assert agreement.endswith("met")
