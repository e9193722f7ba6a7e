"""Functions that make tensors on their way run whole at the worker, whoever made the first pointer."""

from __future__ import annotations

import pytest
import torch

from fedlightning.pointers import MixedLocationsError, UnsupportedOperationError
from fedlightning.pointers.custom_functions import _apply
from fedlightning.workers import VirtualWorker

NAMES = ("mean", "std", "var")


@pytest.mark.parametrize("name", NAMES)
def test_they_are_one_message_and_the_same_bits(name: str, bob: VirtualWorker) -> None:
    x, operations = torch.arange(12.0).reshape(3, 4), list[str]()
    mask = x % 4 > 0
    here = getattr(torch.masked, name)(x, 1, mask=mask)
    pointer, remote_mask = bob.send(x), bob.send(mask)
    submit = bob.submit
    bob.submit = lambda message: operations.append(message.operation) or submit(message)
    there = getattr(torch.masked, name)(pointer, 1, mask=remote_mask)
    assert operations == [f"torch.masked.{name}"]
    del bob.submit
    assert torch.equal(there.get(), here)


def test_they_go_along_a_chain_of_pointers(alice: VirtualWorker, bob: VirtualWorker) -> None:
    x = torch.randn(2, 3)
    chain = bob.send(x).send(alice)
    assert torch.equal(torch.masked.var(chain, 1).get().get(), torch.masked.var(x, 1))


def test_a_local_mask_is_still_a_mixture(bob: VirtualWorker) -> None:
    x = torch.randn(2, 3)
    with pytest.raises(MixedLocationsError, match=r"masked\.mean"):
        torch.masked.mean(bob.send(x), 1, mask=x > 0)


def test_a_pointer_that_was_found_and_not_sent_is_noticed_as_well(
    bob: VirtualWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Same(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

    original = torch.masked.mean
    monkeypatch.setattr(torch.masked, "mean", getattr(original, "__wrapped__", original))
    monkeypatch.setattr(torch.autograd.Function, "apply", classmethod(_apply))
    bob.register(torch.ones(2, requires_grad=True), tags=("#ones",))
    (found,) = bob.search("#ones")
    assert torch.masked.mean(found, 0).get() == 1
    with pytest.raises(UnsupportedOperationError, match="Same"):
        Same.apply(found)
