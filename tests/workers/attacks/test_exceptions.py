"""An exception quotes values, and its frames hold them: of private data only that there was one comes out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fedlightning.workers import KeepData, RefusedByPolicy, RemoteError, VirtualWorker, Worker
from fedlightning.workers.ledger import Entry
from tests.workers.attacks.expecting import is_silent, tells_nothing
from tests.workers.programs import complain, exit_with, fail


@pytest.mark.parametrize(
    "fail_on",
    [
        lambda x: torch.zeros_like(x)[x.long()],
        lambda x: torch.zeros_like(x).index_select(0, x.long()),
        lambda x: torch.zeros_like(x).scatter_(0, x.long(), x),
        lambda x: torch.nn.functional.embedding(x.long(), torch.zeros_like(x)[:2, None]),
        lambda x: torch.nn.functional.nll_loss(x.view(2, 3), x[:2].long()),
        lambda x: torch.multinomial(-x, 2),
        lambda x: torch.linalg.cholesky(-x[:4].view(2, 2)),
        lambda x: torch.bernoulli(x),
        lambda x: x.view(4),
    ],
)
def test_of_an_operation(secret: Tensor, fail_on: Callable[[Tensor], Any]) -> None:
    with is_silent() as info:
        fail_on(secret)
    tells_nothing(info.value)


def test_of_a_backward(guard: Worker, secret: Tensor) -> None:
    with is_silent() as info:
        (guard.send(torch.ones(6, requires_grad=True)) * secret).backward()
    tells_nothing(info.value)


def test_of_a_program(guard: Worker, secret: Tensor) -> None:
    with is_silent() as info:
        guard.run(complain, secret)
    tells_nothing(info.value)
    with is_silent():
        guard.run(complain, [{"deep": (secret * 1,)}])


def test_of_a_program_that_exits(guard: Worker, secret: Tensor) -> None:
    with pytest.raises((SystemExit, RemoteError)) as info:
        guard.run(exit_with, secret)
    assert "3" not in f"{info.value}{info.value.args}{vars(info.value)}"


def test_it_is_entered_at_the_worker_and_said_in_its_log(caplog: pytest.LogCaptureFixture) -> None:
    bob = VirtualWorker(id="bob", policy=KeepData())
    secret = bob.register(torch.tensor([123456.0]))
    with caplog.at_level(logging.ERROR, logger="fedlightning.worker"), is_silent():
        bob.run(complain, secret)
    assert "123456" in caplog.text
    name = "program 'tests.workers.programs:complain'"
    entry = Entry(
        "withheld", "exception", name, "controller", None, "the text of exceptions about private data stays"
    )
    assert bob.ledger.entries[entry] == (1, 0)


def test_of_a_refusal_has_no_frames_of_the_worker(secret: Tensor) -> None:
    with pytest.raises(RefusedByPolicy) as info:
        secret.get()
    tells_nothing(info.value)


def test_about_public_data_says_everything(guard: Worker, secret: Tensor) -> None:
    with pytest.raises(RemoteError, match="by design"):
        guard.run(fail)
    with pytest.raises(RemoteError, match="shape '\\[7\\]' is invalid"):
        guard.send(torch.zeros(6)).view(7)
