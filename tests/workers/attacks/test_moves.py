"""A way round by another worker ends at the same door: rules go where the data goes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedlightning.workers import (
    Allow,
    AtLeast,
    KeepData,
    RefusedByPolicy,
    RemoteError,
    Rules,
    VirtualWorker,
    Worker,
)
from tests.workers.attacks.conftest import VALUES
from tests.workers.attacks.expecting import stays
from tests.workers.conftest import MakeWorker
from tests.workers.programs import first_parameter, fit, total

LENDS = Rules(Allow(to=("carol",)))


@pytest.fixture
def lax(make_worker: MakeWorker) -> Worker:
    """Return a worker that lets out everything of its own."""
    return make_worker("carol")


@pytest.fixture
def lender() -> VirtualWorker:
    return VirtualWorker(id="bob", policy=LENDS)


@pytest.fixture
def carol() -> VirtualWorker:
    return VirtualWorker(id="carol")


def test_to_a_worker_that_lets_everything_out(guard: Worker, lax: Worker, secret: Any) -> None:
    with pytest.raises(RefusedByPolicy, match=r"leave.*: private data stays.*KeepData\(\)"):
        secret.move(lax)
    assert isinstance(secret + 1, Tensor)


def test_a_pointer_held_elsewhere_opens_no_other_door(carol: VirtualWorker) -> None:
    secret = VirtualWorker(id="bob", policy=KeepData()).register(torch.tensor(VALUES))
    chain = secret.send(carol)
    with pytest.raises(RefusedByPolicy, match=r"leave for 'carol': private data stays"):
        chain.remote_get()
    with pytest.raises(RemoteError, match="mixes a local tensor"):
        carol.send(torch.zeros(6)).copy_(chain)
    with stays():
        chain.get().get()


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x.get(),
        lambda x: (x * 0).get(),
        lambda x: x.unique(),
        lambda x: torch.equal(x, x),
        lambda x: x.location.start(total, x).get(),
        lambda x: x.location.send(torch.zeros(6)).copy_(x).get(),
        lambda x: x.move(VirtualWorker(id="dave")),
    ],
)
def test_lent_to_another_worker_it_is_still_the_lenders(
    lender: VirtualWorker, carol: VirtualWorker, use: Any
) -> None:
    there = lender.register(torch.tensor(VALUES)).move(carol)
    with pytest.raises(RefusedByPolicy, match=r"private data stays.*The policy is Rules\(Allow\(to carol\)"):
        use(there)


def test_a_module_trained_on_lent_data_leaves_as_the_lenders_policy_says(
    lender: VirtualWorker, carol: VirtualWorker
) -> None:
    there = lender.register(torch.tensor(VALUES)).move(carol)
    module = carol.send(nn.Linear(1, 1))
    carol.run(fit, module, there)
    carol.start(first_parameter, module).data.copy_(there[:1, None])
    with pytest.raises(RefusedByPolicy, match="private data stays"):
        module.get()


def test_only_the_average_comes_back_from_a_trusted_worker() -> None:
    policy = Rules(Allow(to=("carol",)), AtLeast(2))
    carol = VirtualWorker(id="carol", policy=Rules(AtLeast(2)))
    updates = [
        (VirtualWorker(id=name, policy=policy).register(torch.full((2,), value)) + 0).move(carol)
        for name, value in (("alice", 1.0), ("bob", 3.0))
    ]
    for single in (updates[0], updates[1] * 2, updates[0] - updates[0]):
        with pytest.raises(RefusedByPolicy, match=r"of 1 worker\(s\), and only aggregates over 2 may leave"):
            single.get()
    average = (updates[0] + updates[1]) / 2
    assert average.get().tolist() == [2.0, 2.0]
    (entry,) = [entry for entry in carol.ledger.entries if entry.direction == "sent"]
    assert entry.rule == "aggregate over 2 workers, at least 2"


def test_limit_labels_count_workers_and_not_how_much_each_gave() -> None:
    """Which is why `AtLeast` can be told which programs aggregate."""
    policy = Rules(Allow(to=("carol",)), AtLeast(2))
    alice, bob = (VirtualWorker(id=name, policy=policy) for name in ("alice", "bob"))
    carol = VirtualWorker(id="carol")
    victim, other = alice.register(torch.tensor(VALUES)).move(carol), bob.register(torch.ones(6)).move(carol)
    assert (victim + 0 * other).get().tolist() == VALUES
    named = VirtualWorker(id="dave", policy=Rules(Allow(to=("carol",)), AtLeast(2, programs=("m:average",))))
    kept = named.register(torch.tensor(VALUES)).move(carol)
    with pytest.raises(RefusedByPolicy, match=r"no result of m:average, which aggregate"):
        (kept + 0 * other).get()


def test_what_was_public_stays_public_on_its_way(carol: VirtualWorker) -> None:
    bob = VirtualWorker(id="bob", policy=KeepData())
    bob.register(torch.ones(1))
    assert bob.send(torch.ones(2)).move(carol).get().tolist() == [1.0, 1.0]
