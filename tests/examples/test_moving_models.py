"""The old tutorials' way to a trusted aggregator, op by op: copies train, move, and are averaged there."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

import fedlightning as fl

INPUTS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
TARGETS = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
STEPS, ROUNDS = 5, 4


@pytest.fixture
def hook() -> fl.TorchHook:
    return fl.TorchHook(torch)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> Tensor:
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = ((model(inputs) - targets) ** 2).sum()
        loss.backward()
        optimizer.step()
    return loss


def average(model: nn.Module, copies: list[nn.Module]) -> None:
    """Set the model to the mean of two copies; of pointers, the mean alone is fetched."""
    with torch.no_grad():
        for parameter, one, other in zip(model.parameters(), *(c.parameters() for c in copies), strict=True):
            mean = (one + other) / 2
            parameter.copy_(mean.get() if isinstance(mean, fl.PointerTensor) else mean)


def at_workers(model: nn.Module, workers: list[fl.Worker], secure_worker: fl.Worker) -> list[float]:
    parts = [(INPUTS[half::2].send(w), TARGETS[half::2].send(w)) for half, w in enumerate(workers)]
    losses = []
    for _ in range(ROUNDS):
        copies = [deepcopy(model).send(worker) for worker in workers]
        for copy, part in zip(copies, parts, strict=True):
            loss = train(copy, torch.optim.SGD(copy.parameters(), lr=0.1, momentum=0.5), *part)
        losses.append(loss.get().item())
        for copy in copies:
            copy.move(secure_worker)
        average(model, copies)
    return losses


def here(model: nn.Module) -> list[float]:
    parts = [(INPUTS[half::2], TARGETS[half::2]) for half in range(2)]
    losses = []
    for _ in range(ROUNDS):
        copies = [deepcopy(model) for _ in parts]
        for copy, part in zip(copies, parts, strict=True):
            loss = train(copy, torch.optim.SGD(copy.parameters(), lr=0.1, momentum=0.5), *part)
        losses.append(loss.item())
        average(model, copies)
    return losses


def test_models_that_move_learn_as_they_would_here(hook: fl.TorchHook) -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    twin = deepcopy(model)
    bob, alice, secure = (fl.VirtualWorker(hook, id=name) for name in ("bob", "alice", "secure_worker"))
    losses = at_workers(model, [bob, alice], secure)
    assert losses == here(twin)
    assert losses[-1] < losses[0] / 10
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


def test_no_model_passes_the_controller(hook: fl.TorchHook) -> None:
    bob, alice, secure = (fl.VirtualWorker(hook, id=name) for name in ("bob", "alice", "secure_worker"))
    at_workers(nn.Linear(2, 1), [bob, alice], secure)
    for worker in (bob, alice):
        left = {(entry.to, times, nbytes) for entry, (times, nbytes) in sent(worker)}
        # To the controller: the last loss of a round, 4 bytes, from alice alone.
        to_controller = {("controller", ROUNDS, 4 * ROUNDS)} if worker is alice else set()
        assert left == {("secure_worker", 2 * ROUNDS, 12 * ROUNDS)} | to_controller
    assert {(entry.to, nbytes) for entry, (_, nbytes) in sent(secure)} == {("controller", 12 * ROUNDS)}


def test_nothing_is_left_behind(hook: fl.TorchHook) -> None:
    bob, alice, secure = (fl.VirtualWorker(hook, id=name) for name in ("bob", "alice", "secure_worker"))
    at_workers(nn.Linear(2, 1), [bob, alice], secure)
    assert [len(worker) for worker in (bob, alice, secure)] == [0, 0, 0]


def sent(worker: fl.Worker) -> list[tuple[object, tuple[int, int]]]:
    return [(entry, counts) for entry, counts in worker.ledger.entries.items() if entry.direction == "sent"]
