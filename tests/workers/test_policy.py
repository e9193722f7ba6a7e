"""What the owner's rules say about what: allow, deny, by kind, tag, owner, program and destination."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.workers import (
    Allow,
    AllowAll,
    Decision,
    Deny,
    Egress,
    KeepData,
    RefusedByPolicy,
    Rules,
    Source,
    VirtualWorker,
)

KEEP = KeepData()


def egress(*sources: Source, **changes: Any) -> Egress:
    """Return something that is about to leave bob."""
    plain = Egress("data", "bob", 1, None, 8, "Tensor", (), None, frozenset(sources))
    return replace(plain, **changes)


def source(owner: str | None = None, *tags: str, worker: str = "bob") -> Source:
    return Source(worker, owner, tags, KEEP)


@pytest.mark.parametrize(
    ("policy", "kind", "private", "allowed"),
    [
        (AllowAll(), "data", True, True),
        (KeepData(), "data", True, False),
        (KeepData(), "data", False, True),
        (KeepData(), "module", True, True),
        (KeepData(), "metrics", True, True),
        (KeepData(), "metadata", True, True),
    ],
)
def test_the_two_policies_everybody_needs(policy: Any, kind: Any, private: bool, allowed: bool) -> None:
    assert policy.decide(egress(*[source()] * private, kind=kind)).allowed is allowed


def test_the_first_rule_that_speaks_decides() -> None:
    asked = egress(source("ann", "#a"), kind="metrics")
    deny, allow = Deny(kinds=("metrics",)), Allow(kinds=("metrics",))
    assert not Rules(deny, allow).decide(asked).allowed
    assert Rules(allow, deny).decide(asked).allowed
    assert Rules(allow, deny).decide(asked).rule == "allowed by the owner: kinds metrics"


def test_where_no_rule_speaks_private_data_stays_or_what_was_given_holds() -> None:
    rules = (Deny(tags=("#other",)),)
    assert not Rules(*rules).decide(egress(source())).allowed
    assert Rules(*rules, otherwise=AllowAll()).decide(egress(source())).allowed
    assert not Rules(otherwise=Rules(Deny())).decide(egress(kind="metadata")).allowed


def test_permission_must_cover_everybody_and_prohibition_need_touch_one() -> None:
    both = egress(source("ann", "#a"), source("ben", "#b"))
    assert Allow(owners=("ann",)).judge(both) is None
    assert Allow(tags=("#a",)).judge(both) is None
    assert Allow(owners=("ann", "ben")).judge(both) == Decision(True, "allowed by the owner: owners ann, ben")
    assert Deny(owners=("ann",)).judge(both) == Decision(False, "denied by the owner: owners ann")
    assert Deny(tags=("#b",)).judge(both) is not None
    assert Deny(tags=("#c",)).judge(both) is None


@pytest.mark.parametrize(
    ("criterion", "met", "missed"),
    [
        ({"kinds": ("metrics",)}, {"kind": "metrics"}, {"kind": "data"}),
        ({"programs": ("m:f",)}, {"program": "m:f"}, {"program": "m:g"}),
        ({"to": ("alice",)}, {"to": "alice"}, {"to": "controller"}),
    ],
)
def test_each_criterion(criterion: Any, met: Any, missed: Any) -> None:
    for rule in (Allow(**criterion), Deny(**criterion)):
        assert rule.judge(egress(source(), **met)) is not None
        assert rule.judge(egress(source(), **missed)) is None


names = st.sampled_from(["ann", "ben", "cem"])


@given(st.lists(names, max_size=3), st.lists(names, max_size=3))
def test_an_allowed_value_has_no_owner_beside_those_named(owners: list[str], named: list[str]) -> None:
    decision = Allow(owners=tuple(named)).judge(egress(*map(source, owners)))
    assert (decision is not None) == (not named or set(owners) <= set(named))
    refused = Deny(owners=tuple(named)).judge(egress(*map(source, owners)))
    assert (refused is not None) == (not named or bool(set(owners) & set(named)))


def test_tags_rule_at_a_worker() -> None:
    bob = VirtualWorker(id="bob", policy=Rules(Allow(tags=("#open",)), Deny(tags=("#genome",))))
    genome, open_ = (bob.register(torch.ones(2), tags=(tag,)) for tag in ("#genome", "#open"))
    assert (open_ + 1).get().tolist() == [2.0, 2.0]
    with pytest.raises(
        RefusedByPolicy, match=r"denied by the owner: tags #genome\. The policy is Rules\(Allow"
    ):
        (genome + open_).get()


def test_policies_read_as_they_are_written() -> None:
    assert repr(Rules(Deny(), Allow(owners=("ann",)))) == (
        "Rules(Deny(everything), Allow(owners ann), otherwise=KeepData())"
    )


class Curious:
    """A policy that fails."""

    def decide(self, egress: Egress) -> Decision:
        raise KeyError(f"I saw {egress.value}")


def test_where_a_policy_raises_nothing_leaves_and_nothing_is_told() -> None:
    bob = VirtualWorker(id="bob", policy=Curious())
    secret = bob.register(torch.tensor([123456.0]))
    with pytest.raises(
        RuntimeError, match="the policy raised at worker 'bob'; what it says is withheld"
    ) as info:
        secret.get()
    assert "123456" not in str(info.value)
    assert [entry.direction for entry in bob.ledger.entries] == ["refused"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Allow(tags="#x"), TypeError, r"tags='#x' is no tuple of strings: give tags=\('#x',\)"),
        (lambda: Deny(owners=["ann"]), TypeError, r"owners=\['ann'\] is no tuple"),
        (lambda: Deny(to=(3,)), TypeError, r"to=\(3,\) is no tuple of strings"),
        (lambda: Allow(kinds=("secrets",)), ValueError, "'secrets', no kind of egress: use data, module"),
        (lambda: Rules(KeepData()), TypeError, r"KeepData\(\) is no rule: use Allow\(\)"),
        (lambda: Rules(Allow), TypeError, "is no rule"),
        (lambda: Rules(otherwise=Allow()), TypeError, "is no policy: give an instance"),
        (
            lambda: VirtualWorker(id="bob", policy=KeepData),
            TypeError,
            "KeepData'> is no policy: give an instance",
        ),
        (lambda: VirtualWorker(id="bob", policy="deny"), TypeError, "policy='deny' is no policy"),
        (
            lambda: VirtualWorker(id="bob").register(1, tags="#x"),
            TypeError,
            r"tags='#x' is a string.*\('#x',\)",
        ),
        (lambda: VirtualWorker(id="bob").send(1, tags="#x"), TypeError, "tags='#x' is a string"),
    ],
)
def test_bad_settings_are_refused_with_a_remedy(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make()
