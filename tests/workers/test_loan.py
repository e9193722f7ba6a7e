"""What is lent weighs in a worker's ledger what it would weigh on a wire, at each visit."""

from __future__ import annotations

import torch
from torch import nn

from fedlightning.workers import Traffic, VirtualWorker, in_round, program
from fedlightning.workers.loan import Loan


@program(returns="metadata")
def grow(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Exchange a buffer for a larger one, and fill the optimizer's state."""
    for name, buffer in list(module.named_buffers()):
        module.register_buffer(name, torch.cat([buffer, buffer]))
    for parameter in module.parameters():
        optimizer.state[parameter]["momentum"] = torch.zeros_like(parameter)


def test_sizes_are_those_on_arrival_and_on_departure() -> None:
    net = nn.Linear(3, 1)
    net.register_buffer("seen", torch.zeros(10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    loan = Loan(grow, (net, optimizer))
    weights, state = 4 * (3 + 1), 4 * (3 + 1)
    first, second = VirtualWorker(id="first"), VirtualWorker(id="second")
    with in_round(0):
        first.lend(loan)
        second.lend(loan)
    assert first.ledger.of_round(0) == Traffic(sent=weights + 80 + state, received=weights + 40)
    assert second.ledger.of_round(0) == Traffic(sent=weights + 160 + state, received=weights + 80 + state)


def test_the_account_is_that_of_sending_and_fetching() -> None:
    net = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    lent, sent = VirtualWorker(id="lent"), VirtualWorker(id="sent")
    with in_round(0):
        lent.lend(Loan(grow, (net, optimizer)))
        optimizer.state.clear()
        module_there, optimizer_there = sent.send(net), sent.send(optimizer)
        sent.run(grow, module_there, optimizer_there)
        optimizer_there.get()
        module_there.get()
    assert [{**row, "to": ""} for row in lent.ledger.rows()] == [
        {**row, "to": ""} for row in sent.ledger.rows()
    ]
