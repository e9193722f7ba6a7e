"""What is refused leaves nothing half done: no object, no change, no pointer spent."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedlightning.pointers import PointerTensor
from fedlightning.pointers.messages import Ref
from fedlightning.workers import RefusedByPolicy, Worker, WorkerError
from tests.workers.attacks.expecting import ask, is_silent, stays
from tests.workers.programs import count, reveal, total


@pytest.mark.parametrize(
    "request_",
    [
        lambda worker, x: x.get(),
        lambda worker, x: torch.equal(x, x),
        lambda worker, x: x.unique(),
        lambda worker, x: x[x > 2],
        lambda worker, x: x.view(5),
        lambda worker, x: worker.run(reveal, x),
        lambda worker, x: ask(worker, "torch.Tensor.size", Ref(x.id_at_location)),
        lambda worker, x: ask(worker, "torch.frexp.secret", Ref(x.id_at_location)),
        lambda worker, x: torch.linalg.lstsq(x.view(3, 2), x.view(3, 2)),
    ],
)
def test_the_worker_is_as_before(
    guard: Worker, secret: Tensor, request_: Callable[[Worker, Tensor], Any]
) -> None:
    before = len(guard)
    for _ in range(2):
        with pytest.raises(WorkerError):
            request_(guard, secret)
    gc.collect()
    guard.run(count, [])  # a worker in another process hears of released objects with the next message
    assert len(guard) == before
    assert isinstance(secret + 1, PointerTensor)


def test_a_refused_pointer_is_not_spent(guard: Worker, secret: Tensor) -> None:
    for _ in range(3):
        with stays():
            secret.get()
    assert isinstance(guard.start(total, secret), PointerTensor)


def test_a_refused_module_is_still_there_whole(guard: Worker, secret: Tensor) -> None:
    module = nn.Linear(6, 2)
    module.send(guard)
    with torch.no_grad():
        module.bias.copy_(secret[:2])
    with stays():
        module.get()
    assert all(isinstance(tensor, PointerTensor) for tensor in module.parameters())
    assert isinstance(module(secret), PointerTensor)


def test_operations_are_for_tensors(guard: Worker) -> None:
    samples = guard.register([torch.ones(2), torch.ones(2)])
    with pytest.raises(RefusedByPolicy, match=r"torch\.stack on object \d+, a list: it is no tensor"):
        ask(guard, "torch.stack", Ref(samples.id_at_location))


def test_each_refusal_is_entered(guard: Worker, secret: Tensor) -> None:
    for _ in range(3):
        with stays():
            secret.get()
    ((entry, tally),) = guard.ledger.entries.items()
    assert (entry.direction, entry.kind, entry.rule) == (
        "refused",
        "data",
        "private data stays at its worker",
    )
    assert tally == (3, 3 * 24)
    assert guard.ledger.sent_bytes == 0


def test_sent_without_waiting_it_is_refused_all_the_same(guard: Worker, secret: Tensor) -> None:
    with stays(), guard.pipeline():
        (secret * 2).get()
    with stays(), guard.pipeline():
        guard.send(torch.ones(6))[secret > 2].shape  # noqa: B018  # to ask for it is the attack
    with is_silent(), guard.pipeline():
        secret.view(5).add(1)
