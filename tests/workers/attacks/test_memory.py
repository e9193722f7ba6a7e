"""A label lies on memory: no name for it, no way to write into it, and no memory freed of it gets it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedlightning.pointers import PointerTensor
from fedlightning.pointers.messages import Ref
from fedlightning.workers import VirtualWorker, Worker
from tests.workers.attacks.expecting import VALUES, ask, stays
from tests.workers.programs import append, first_parameter


@pytest.mark.parametrize(
    "alias",
    [
        lambda x: x[1:3],
        lambda x: x.view(2, 3).t(),
        lambda x: x.detach(),
        lambda x: x.data,
        lambda x: x.expand(2, 6),
        lambda x: x.unsqueeze(0).squeeze(0),
        lambda x: x.view(torch.int32),
        lambda x: torch.as_strided(x, (2, 2), (1, 2)),
        lambda x: x.unbind()[2],
        lambda x: x.split(3)[1],
        lambda x: torch.nn.Parameter(x),
        lambda x: x.to(torch.float64),
        lambda x: x[:0],
        lambda x: torch.zeros_like(x),
    ],
)
def test_views_aliases_and_what_is_computed(secret: Tensor, alias: Callable[[Tensor], Tensor]) -> None:
    with stays():
        alias(secret).get()


@pytest.mark.parametrize(
    "carry",
    [
        lambda own, secret: own.add_(secret),
        lambda own, secret: own.copy_(secret),
        lambda own, secret: own[0].copy_(secret[0]),
        lambda own, secret: own.__setitem__(slice(2), secret[:2]),
        lambda own, secret: own.masked_fill_(secret > 2, 1.0),
        lambda own, secret: own.index_add_(0, own.long() * 0, secret),
        lambda own, secret: torch.add(secret, 1, out=own),
        lambda own, secret: torch.sort(secret, out=(own, own.long())),
        lambda own, secret: torch._foreach_add_([own, own.clone()], [secret, secret]),
        lambda own, secret: setattr(secret, "data", own),
        lambda own, secret: own.detach().mul_(0).add_(secret),
        lambda own, secret: own.view(2, 3).add_(secret.view(2, 3)),
        lambda own, secret: F.relu_(own.add_(secret)),
        lambda own, secret: nn.init.constant_(own, 1.0).lerp_(secret, 1.0),
        lambda own, secret: torch.nn.utils.parameters_to_vector([own.data.copy_(secret)]),
    ],
)
def test_writing_into_memory_of_ones_own(
    own: Tensor, secret: Tensor, carry: Callable[[Tensor, Tensor], Any]
) -> None:
    alias = own[:]
    carry(own, secret)
    for name in (own, alias):
        with stays():
            name.get()


def test_exchanging_memory(own: Tensor, secret: Tensor) -> None:
    before = own[:]
    own.data = secret
    with stays():
        own.get()
    assert torch.equal(before.get(), torch.zeros(6))


@pytest.mark.parametrize(
    "norm",
    [
        lambda x, mean, var: F.batch_norm(x, mean, var, training=True, momentum=1.0),
        lambda x, mean, var: torch.batch_norm(x, None, None, mean, var, True, 1.0, 1e-5, False),
        lambda x, mean, var: F.instance_norm(
            x[..., None].expand(2, 3, 2), mean, var, use_input_stats=True, momentum=1.0
        ),
        lambda x, mean, var: torch.native_batch_norm(x, None, None, mean, var, True, 1.0, 1e-5),
        lambda x, mean, var: torch._native_batch_norm_legit(x, None, None, mean, var, True, 1.0, 1e-5),
        lambda x, mean, var: torch.batch_norm_update_stats(x, mean, var, 1.0),
        lambda x, mean, var: torch.ops.aten._batch_norm_with_update(x, None, None, mean, var, 1.0, 1e-5),
    ],
    ids=["batch", "torch", "instance", "native", "legit", "update_stats", "with_update"],
)
def test_running_statistics(
    guard: Worker, secret: Tensor, norm: Callable[[Tensor, Tensor, Tensor], Any]
) -> None:
    mean, var = guard.send(torch.zeros(3)), guard.send(torch.ones(3))
    norm(secret.view(2, 3), mean, var)
    with stays():
        mean.get()
    with stays():
        var.get()


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.InstanceNorm1d])
def test_running_statistics_of_a_module(guard: Worker, secret: Tensor, norm: Any) -> None:
    module = norm(3, track_running_stats=True)
    module.send(guard)
    module(secret.view(2, 3)[..., None].expand(2, 3, 2))
    for name in ("running_mean", "running_var"):
        with stays():
            getattr(module, name).get()


@pytest.mark.parametrize(
    "make",
    [
        lambda own: own.new_empty(50),
        lambda own: torch.empty_like(own),
        lambda own: own.new_empty_strided((5, 5), (10, 1)),
        lambda own: own.resize_(50),
        lambda own: own.resize_as_(own.new_zeros(50)),
    ],
    ids=["new_empty", "empty_like", "new_empty_strided", "resize_", "resize_as_"],
)
def test_new_memory_is_blank(make_worker: Any, make: Callable[[Tensor], Tensor]) -> None:
    # Whatever was freed before: a worker that lets everything out shows what it was given.
    bob = make_worker("bob")
    for _ in range(20):
        junk = bob.send(torch.full((50,), 7.0))
        del junk
        assert make(bob.send(torch.zeros(6)) * 1).get().count_nonzero() == 0


@pytest.mark.parametrize("name", ["empty", "empty_strided", "empty_permuted"])
def test_new_memory_is_blank_where_only_a_message_asks_for_it(guard: Worker, name: str) -> None:
    layout = {"empty": (), "empty_strided": ((9, 1),), "empty_permuted": ((0, 1),)}[name]
    for _ in range(20):
        junk = torch.full((5, 9), 7.0)
        del junk
        made = PointerTensor.point(guard, ask(guard, f"torch.{name}", (5, 9), *layout))
        assert made.get().count_nonzero() == 0


def test_memory_that_a_program_shared_is_followed_into_objects(guard: Worker, secret: Tensor) -> None:
    """A tensor and a list that has it, both public until single operations write the secret there."""
    own, holder = guard.send(torch.zeros(6)), guard.send([])
    guard.run(append, holder, own)
    own.add_(secret)
    with stays():
        holder.get()


def test_a_module_written_to_by_single_operations_is_data(guard: Worker, secret: Tensor) -> None:
    pointer = guard.send(nn.Linear(6, 1))
    weight = guard.start(first_parameter, pointer)
    weight.data.copy_(secret.unsqueeze(0))
    with stays():
        pointer.get()


def test_each_worker_labels_for_itself() -> None:
    """Two workers of a process may have the same memory; one's label is not the other's."""
    memory = torch.tensor(VALUES)
    bob, alice = (VirtualWorker(id=name) for name in ("bob", "alice"))
    bob.register(memory)
    assert torch.equal(alice.register(memory).get(), memory)


def test_a_reference_to_a_tensor_among_keywords_and_lists_counts(
    guard: Worker, secret: PointerTensor
) -> None:
    own = guard.send(torch.zeros(6))
    tensors = [Ref(own.id_at_location), Ref(secret.id_at_location)]
    for args, kwargs in (((tensors,), {}), ((), {"tensors": tuple(tensors)})):
        stacked = PointerTensor.point(guard, ask(guard, "torch.stack", *args, **kwargs))
        with stays():
            stacked.get()
