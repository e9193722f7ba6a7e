"""A label is lifted by an aggregate over enough workers, or by a mechanism that changes the value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedlightning.workers import (
    Allow,
    AllowAll,
    AtLeast,
    Egress,
    KeepData,
    RefusedByPolicy,
    Rules,
    Source,
    Through,
    VirtualWorker,
    program,
)


def of_workers(*names: str, **changes: Any) -> Egress:
    sources = frozenset(Source(name, None, (), KeepData()) for name in names)
    return replace(Egress("data", "carol", 1, None, 8, "Tensor", (), None, sources), **changes)


@pytest.mark.parametrize(("names", "allowed"), [("a", False), ("ab", False), ("abc", True), ("abcd", True)])
def test_what_enough_workers_went_into_may_leave(names: str, allowed: bool) -> None:
    decision = AtLeast(3).judge(of_workers(*names))
    assert decision is not None
    assert decision.allowed is allowed


def test_contributions_of_one_worker_count_once() -> None:
    sources = frozenset(Source("bob", owner, (), KeepData()) for owner in ("ann", "ben", "cem"))
    decision = AtLeast(2).judge(replace(of_workers(), sources=sources))
    assert decision is not None
    assert not decision.allowed
    assert decision.rule == "of 1 worker(s), and only aggregates over 2 may leave"


@pytest.mark.parametrize(("name", "allowed"), [("m:average", True), ("m:first", False), (None, False)])
def test_only_the_named_programs_aggregate(name: str | None, allowed: bool) -> None:
    decision = AtLeast(2, programs=("m:average",)).judge(of_workers("a", "b", program=name))
    assert decision is not None
    assert decision.allowed is allowed


def test_public_values_are_none_of_its_business() -> None:
    assert AtLeast(2).judge(of_workers()) is None


@dataclass(frozen=True)
class Noise:
    """Add a fixed number, as a stand-in for a mechanism, until the budget is spent."""

    budget: list[int]

    @property
    def name(self) -> str:
        return "noise of 100"

    def release(self, value: Any, egress: Egress) -> Any:
        if not self.budget:
            raise RuntimeError(f"no budget left for {value}")
        self.budget.pop()
        return value + 100


@program(returns="metrics")
def summed(samples: Tensor) -> float:
    return samples.sum().item()


def test_a_mechanism_changes_what_leaves_and_the_ledger_names_it() -> None:
    bob = VirtualWorker(id="bob", policy=Rules(Through(Noise([1, 2]), kinds=("data", "metrics"))))
    samples = bob.register(torch.tensor([1.0, 2.0]))
    assert bob.run(summed, samples) == 103
    assert samples.sum().get() == 103
    assert {entry.rule for entry in bob.ledger.entries} == {"through noise of 100"}


def test_when_the_budget_is_spent_nothing_leaves_and_nothing_is_told() -> None:
    bob = VirtualWorker(id="bob", policy=Rules(Through(Noise([]))))
    samples = bob.register(torch.tensor([123456.0]))
    with pytest.raises(RuntimeError, match="the policy raised") as info:
        samples.get()
    assert "123456" not in str(info.value)
    assert bob.ledger.sent_bytes == 0


def test_a_shape_passes_no_mechanism() -> None:
    bob = VirtualWorker(id="bob", policy=Rules(Through(Noise([1]))))
    with pytest.raises(RefusedByPolicy, match="a shape cannot pass noise of 100"):
        bob.register(torch.tensor([1.0, 2.0])).unique()


def test_a_mechanism_must_speak_for_every_owner() -> None:
    bob = VirtualWorker(id="bob", policy=Rules(Through(Noise([1] * 9), owners=("ann",))))
    ann, ben = (bob.register(torch.ones(1), owner=name) for name in ("ann", "ben"))
    assert ann.get() == 101
    with pytest.raises(RefusedByPolicy, match="private data stays"):
        (ben + 0).get()


def test_the_object_itself_stays_as_it_was() -> None:
    bob = VirtualWorker(id="bob", policy=Rules(Through(Noise([1])), otherwise=AllowAll()))
    samples = torch.ones(2)
    assert bob.register(samples).get().tolist() == [101.0, 101.0]
    assert samples.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AtLeast(1), ValueError, "workers=1 is no aggregate: at least 2 must contribute"),
        (lambda: AtLeast(2.5), TypeError, "workers=2.5 is no whole number"),
        (lambda: AtLeast(True), TypeError, "workers=True is no whole number"),
        (lambda: AtLeast(2, programs="m:f"), TypeError, "programs='m:f' is no tuple"),
        (lambda: Through(None), TypeError, "mechanism=None is no mechanism: give one with name and release"),
        (lambda: Through(Noise), TypeError, "is no mechanism"),
        (lambda: Through(Allow()), TypeError, "is no mechanism"),
    ],
)
def test_bad_settings_are_refused(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@program(returns="data")
def average_of(values: list[Tensor]) -> Tensor:
    """Return the mean of some tensors."""
    return torch.stack(values).mean(0)


@program(returns="data")
def add_in_place(total: Tensor, value: Tensor) -> None:
    """Add a tensor to another one, where that is."""
    total.add_(value)


def gathered() -> tuple[VirtualWorker, list[Any]]:
    """Return a trusted worker with private tensors of three others, who let out aggregates over three."""
    policy = Rules(Allow(to=("trusted",)), AtLeast(3))
    trusted = VirtualWorker(id="trusted")
    homes = [VirtualWorker(id=name, policy=policy) for name in ("alice", "bob", "carol")]
    return trusted, [home.register(torch.ones(2) * n).move(trusted) for n, home in enumerate(homes)]


def test_to_have_been_at_hand_is_no_contribution() -> None:
    """What took part in an aggregate is no aggregate itself, and does not become one in the next."""
    trusted, values = gathered()
    assert trusted.run(average_of, values).tolist() == [1.0, 1.0]
    with pytest.raises(RefusedByPolicy, match="of 1 worker"):
        trusted.run(average_of, values[:1])
    with pytest.raises(RefusedByPolicy, match="of 2 worker"):
        trusted.run(average_of, values[:2])
    with pytest.raises(RefusedByPolicy, match="of 1 worker"):
        values[0].get()


def test_what_a_program_has_written_into_is_one() -> None:
    trusted, values = gathered()
    total = trusted.send(torch.zeros(2))
    for value in values[:2]:
        trusted.start(add_in_place, total, value)
    with pytest.raises(RefusedByPolicy, match="of 2 worker"):
        total.copy().get()
    trusted.start(add_in_place, total, values[2])
    assert total.get().tolist() == [3.0, 3.0]
