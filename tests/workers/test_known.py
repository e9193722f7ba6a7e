"""Workers know each other by name, as long as they live."""

from __future__ import annotations

import pytest
import torch

from fedlightning.workers import TorchHook, VirtualWorker, local_worker


def test_a_hook_introduces_its_workers_to_the_local_one() -> None:
    bob = VirtualWorker(TorchHook(torch), id="bob")
    assert local_worker.get_worker("bob") is bob
    assert bob.get_worker("me") is local_worker
    assert local_worker.get_worker("me") is local_worker


def test_workers_are_introduced_by_hand() -> None:
    alice, bob, carol = (VirtualWorker(id=name) for name in ("alice", "bob", "carol"))
    assert alice.add_workers([bob, carol]) is alice
    assert sorted(alice.known_workers) == ["bob", "carol"]
    assert alice.get_worker("carol") is carol
    assert alice.get_worker(bob) is bob
    del carol
    with pytest.raises(KeyError, match=r"'alice' knows no worker id='carol', but 'bob'"):
        alice.get_worker("carol")
