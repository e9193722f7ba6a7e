"""A module that is lent to a worker in process does what one does that is sent and fetched by messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from typing_extensions import override

from fedlightning import FederatedStrategy
from fedlightning.workers import KeepData, Policy, Reply, VirtualWorker
from tests.strategy.toys import Classifier, assert_same_module, fit


class Listened(VirtualWorker):
    """Somebody might listen to its messages, so that there must be some."""

    @override
    def submit(self, message: Any) -> Reply:
        return super().submit(message)


def _run(kind: type[VirtualWorker], state: Any, make: Callable[[], Policy | None]) -> Any:
    workers = [kind(id=name, policy=make()) for name in ("alice", "bob")]
    update: Any = "sequential" if state == "travel" else "averaged"
    strategy = FederatedStrategy(
        workers, update=update, local_steps=2, rounds_per_epoch=3, optimizer_state=state, seed=0
    )
    module, _ = fit(strategy, module=lambda: Classifier(lambda p: torch.optim.Adam(p, lr=0.01)))
    return module, [worker.ledger.rows() for worker in workers], [len(worker) for worker in workers]


@pytest.mark.parametrize("state", ["reset", "keep", "travel"])
def test_bits_ledger_and_objects_are_those_of_messages(state: Any) -> None:
    lent, lent_ledgers, lent_objects = _run(VirtualWorker, state, lambda: None)
    sent, sent_ledgers, sent_objects = _run(Listened, state, lambda: None)
    assert_same_module(lent, sent)
    key = str
    assert [sorted(rows, key=key) for rows in lent_ledgers] == [
        sorted(rows, key=key) for rows in sent_ledgers
    ]
    assert lent_objects == sent_objects


def test_only_what_nobody_could_notice_is_lent() -> None:
    assert VirtualWorker(id="bob").lends
    assert not Listened(id="bob").lends
    private = VirtualWorker(id="bob", policy=KeepData())
    assert private.lends
    private.register(torch.ones(2))
    assert not private.lends  # labels have to be looked after
