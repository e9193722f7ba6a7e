"""The server's step: the average itself, or an optimizer along the pseudo-gradient."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch.nn import Parameter

from fedlightning.algorithms import ServerUpdate


def step(server: ServerUpdate, parameters: list[Parameter], average: list[torch.Tensor]) -> None:
    server.set_pseudo_gradients(parameters, average)
    server.apply(parameters, average)


def test_plain_average_is_taken_as_it_is() -> None:
    parameter, average = Parameter(torch.tensor([1.0, 0.1])), torch.tensor([0.3, 0.7])
    server = ServerUpdate()
    server.prepare([parameter])
    step(server, [parameter], [average])
    assert torch.equal(parameter, average)
    assert torch.equal(parameter.grad, torch.tensor([1.0, 0.1]) - average)


def test_sgd_with_rate_one_is_averaging() -> None:
    parameter = Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    server = ServerUpdate(partial(torch.optim.SGD, lr=1.0))
    server.prepare([parameter])
    average = torch.tensor([0.3, 0.7], dtype=torch.float64)
    step(server, [parameter], [average])
    torch.testing.assert_close(parameter.detach(), average, rtol=0, atol=1e-15)


def test_adam_steps_along_the_pseudo_gradient() -> None:
    ours, plain = Parameter(torch.tensor([1.0, 2.0])), Parameter(torch.tensor([1.0, 2.0]))
    server = ServerUpdate(partial(torch.optim.Adam, lr=0.1))
    server.prepare([ours])
    adam = torch.optim.Adam([plain], lr=0.1)
    for average in (torch.tensor([0.5, 2.5]), torch.tensor([0.1, 2.0])):
        plain.grad = plain.detach() - average
        adam.step()
        step(server, [ours], [average])
    assert torch.equal(ours, plain)


def test_frozen_parameters_are_not_decayed() -> None:
    frozen = Parameter(torch.tensor([1.0]), requires_grad=False)
    server = ServerUpdate(partial(torch.optim.SGD, lr=1.0, weight_decay=0.5))
    server.prepare([frozen])
    step(server, [frozen], [torch.tensor([1.0])])
    assert frozen.item() == 1.0


def test_a_scheduler_steps_once_per_round_and_is_saved() -> None:
    """Rates 1, 1/2 and 1/4: the second half of the run goes on at 1/4."""
    make = partial(torch.optim.SGD, lr=1.0), partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    parameter = Parameter(torch.zeros(1))
    first = ServerUpdate(*make)
    first.prepare([parameter])
    for place in (1.0, 1.5):
        step(first, [parameter], [parameter.detach() + 1])
        assert parameter.item() == place
    second = ServerUpdate(*make)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.prepare([parameter])
    step(second, [parameter], [parameter.detach() + 1])
    assert parameter.item() == 1.75


def test_the_state_of_another_scheduler_is_refused() -> None:
    optimizer = partial(torch.optim.SGD, lr=1.0)
    saved = ServerUpdate(optimizer, partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5))
    saved.prepare([Parameter(torch.zeros(1))])
    other = ServerUpdate(optimizer)
    other.prepare([Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match="server_scheduler is None, and the checkpoint's is ExponentialLR"):
        other.load_state_dict(saved.state_dict())


def test_state_survives_before_and_after_prepare() -> None:
    make = partial(torch.optim.SGD, lr=1.0, momentum=0.9)
    first = ServerUpdate(make)
    parameter = Parameter(torch.tensor([1.0]))
    first.prepare([parameter])
    step(first, [parameter], [torch.tensor([0.5])])
    saved = copy.deepcopy(first.state_dict())
    step(first, [parameter], [torch.tensor([0.0])])
    for load_first in (True, False):
        second, again = ServerUpdate(make), Parameter(torch.tensor([0.5]))
        if load_first:
            second.load_state_dict(copy.deepcopy(saved))
        second.prepare([again])
        if not load_first:
            second.load_state_dict(copy.deepcopy(saved))
        step(second, [again], [torch.tensor([0.0])])
        assert torch.equal(again, parameter)


@pytest.mark.parametrize(
    ("saved", "expected"), [("SGD", "Adam"), ("SGD", None), (None, "Adam")], ids=["other", "none", "new"]
)
def test_the_state_of_another_optimizer_is_refused(saved: str | None, expected: str | None) -> None:
    def server(kind: str | None) -> ServerUpdate:
        made = ServerUpdate(None if kind is None else partial(getattr(torch.optim, kind), lr=0.1))
        made.prepare([Parameter(torch.tensor([1.0]))])
        return made

    with pytest.raises(ValueError, match=f"server_optimizer is {expected}, and the checkpoint's is {saved}"):
        server(expected).load_state_dict(server(saved).state_dict())


def test_without_an_optimizer_there_is_no_state() -> None:
    server = ServerUpdate()
    server.load_state_dict(None)
    assert server.state_dict() is None
    assert server.averages_plainly
