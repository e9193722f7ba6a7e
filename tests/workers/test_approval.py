"""Somebody is asked before something leaves, sees what it is, and approves exactly that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fedlightning.workers import ApprovalQueue, Ask, Egress, RefusedByPolicy, Rules, VirtualWorker, program
from fedlightning.workers.approval import fingerprint


@program(returns="metrics")
def mean(samples: torch.Tensor) -> float:
    return samples.mean().item()


def make(approver: Any, **scope: Any) -> VirtualWorker:
    return VirtualWorker(id="bob", policy=Rules(Ask(approver, **scope)))


def test_a_function_is_asked_with_the_value_at_hand() -> None:
    asked: list[Egress] = []

    def small_enough(egress: Egress) -> bool:
        asked.append(egress)
        return bool(egress.value.numel() < 2)

    bob = make(small_enough)
    samples = bob.register(torch.tensor([1.0, 2.0]), owner="clinic")
    assert samples.sum().get() == 3
    with pytest.raises(RefusedByPolicy, match="the owner has not approved it"):
        samples.get()
    assert [egress.value.numel() for egress in asked] == [1, 2]
    assert {source.owner for source in asked[0].sources} == {"clinic"}


def test_only_what_is_private_and_in_scope_is_asked_about() -> None:
    def never(egress: Egress) -> bool:
        raise AssertionError("asked")

    bob = make(never, tags=("#scans",), kinds=("data",))
    notes, scans = bob.register([1.0]), bob.register(torch.ones(2), tags=("#scans",))
    assert bob.send([2.0]).get() == [2.0]
    assert bob.run(mean, scans) == 1.0
    with pytest.raises(RefusedByPolicy, match="private data stays"):
        notes.get()


@pytest.fixture
def queue() -> ApprovalQueue:
    return ApprovalQueue()


def attempt(pointer: Any) -> None:
    with pytest.raises(RefusedByPolicy):
        pointer.get()


def test_an_approved_value_leaves_once(queue: ApprovalQueue) -> None:
    bob = make(queue)
    samples = bob.register(torch.tensor([1.0, 2.0]))
    attempt(samples)
    attempt(samples)
    (request,) = queue.waiting
    queue.approve(request)
    assert queue.waiting == ()
    assert samples.get().tolist() == [1.0, 2.0]


def test_a_result_is_approved_for_its_value(queue: ApprovalQueue) -> None:
    bob = make(queue)
    samples = bob.register(torch.tensor([1.0, 2.0]))
    for _ in range(2):
        with pytest.raises(RefusedByPolicy):
            bob.run(mean, samples)
    queue.approve(queue.waiting[0])
    assert bob.run(mean, samples) == 1.5
    with pytest.raises(RefusedByPolicy):
        bob.run(mean, samples)


def test_something_harmless_cannot_be_approved_and_then_exchanged(queue: ApprovalQueue) -> None:
    bob = make(queue)
    secret = bob.register(torch.tensor([3.0, 1.0]))
    harmless = secret * 0
    attempt(harmless)
    (request,) = queue.waiting
    harmless.add_(secret)
    with pytest.raises(ValueError, match="has changed since it was asked for: ask again"):
        queue.approve(request)
    attempt(harmless)
    (request,) = queue.waiting
    queue.approve(request)
    harmless.add_(secret)
    attempt(harmless)


def test_what_is_rejected_waits_no_more(queue: ApprovalQueue) -> None:
    samples = make(queue).register(torch.ones(2))
    attempt(samples)
    (request,) = queue.waiting
    queue.reject(request)
    assert queue.waiting == ()
    for answer in (queue.reject, queue.approve):
        with pytest.raises(ValueError, match="does not wait for approval"):
            answer(request)


def test_requests_do_not_fill_the_memory() -> None:
    queue = ApprovalQueue(limit=2)
    bob = make(queue)
    for size in range(1, 5):
        attempt(bob.register(torch.ones(size)))
    assert [request.nbytes for request in queue.waiting] == [4, 8]


def test_a_shape_can_be_approved(queue: ApprovalQueue) -> None:
    samples = make(queue).register(torch.tensor([1.0, 5.0, 1.0]))
    with pytest.raises(RefusedByPolicy, match=r"'torch\.Tensor\.unique, shape'"):
        samples.unique()
    (request,) = queue.waiting
    assert request.value.operation == "torch.Tensor.unique"
    queue.approve(request)
    assert samples.unique().shape == (2,)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2), torch.zeros(3)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (torch.zeros(2), torch.tensor([0.0, 1.0])),
        ([1, 2], [1, 3]),
        ({"a": torch.zeros(1), "b": 0.5}, {"a": torch.zeros(1), "b": 0.25}),
        (nn.Linear(1, 1), nn.Linear(1, 1)),
        (1, "1"),
    ],
)
def test_fingerprints_tell_values_apart(one: Any, other: Any) -> None:
    assert fingerprint(one) == fingerprint(one) != fingerprint(other)


def test_conjugate_and_narrow_types_have_fingerprints() -> None:
    number = torch.tensor([1 + 2j])
    assert fingerprint(number.conj()) == fingerprint(number.conj().clone().resolve_conj())
    assert fingerprint(torch.ones(2, dtype=torch.bfloat16)) != fingerprint(torch.ones(2, dtype=torch.float16))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(TypeError, match="approver=None cannot be called: give a function or a queue"):
        Ask(None)  # type: ignore[arg-type]  # what a careless caller would do
    with pytest.raises(ValueError, match="limit=0 lets no request wait"):
        ApprovalQueue(limit=0)
