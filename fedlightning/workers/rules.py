"""A policy put together from rules: allow and deny, by kind, tag, owner, program and destination.

Rules that ask a person are in `approval`, those that lift a label in `declassify`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from typing_extensions import override

from fedlightning.workers.policy import (
    EGRESS_KINDS,
    Decision,
    Egress,
    EgressKind,
    KeepData,
    Policy,
    check_policy,
)


class Rule(Protocol):
    """Judge what the rule is about and pass over everything else.

    Example:
        >>> import torch
        >>> from fedlightning.workers import AllowAll, RefusedByPolicy, VirtualWorker
        >>> class OnlySmall(Rule):
        ...     def judge(self, egress):
        ...         return Decision(False, "more than 100 bytes") if egress.nbytes > 100 else None
        >>> bob = VirtualWorker(id="bob", policy=Rules(OnlySmall(), otherwise=AllowAll()))
        >>> try:
        ...     bob.send(torch.zeros(1000)).get()
        ... except RefusedByPolicy as refusal:
        ...     print(refusal.rule)
        more than 100 bytes
    """

    def judge(self, egress: Egress) -> Decision | None:
        """Return a decision, or None where the rule has nothing to say.

        Args:
            egress: What is about to leave.
        """


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Say what a rule is about. A criterion that is left empty is met by everything.

    Args:
        kinds: Kinds of egress.
        tags: Tags of the private data that went in, or of the object itself.
        owners: Owners of the private data that went in.
        programs: Names of the programs whose results are meant.
        to: Workers that it would go to; ``controller`` for the controller.

    Raises:
        ValueError: There is no such kind of egress.
        TypeError: A criterion is no tuple of strings.
    """

    kinds: tuple[EgressKind, ...] = ()
    tags: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in _CRITERIA:
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(isinstance(value, str) for value in values):
                example = values if isinstance(values, str) else "..."
                raise TypeError(f"{name}={values!r} is no tuple of strings: give {name}=({example!r},)")
        for kind in self.kinds:
            if kind not in EGRESS_KINDS:
                raise ValueError(f"kinds has {kind!r}, no kind of egress: use {', '.join(EGRESS_KINDS)}")

    def covers_all_of(self, egress: Egress) -> bool:
        """Tell whether the rule speaks for everybody whose data went in, as permission must."""
        return self._is_such(egress) and all(
            (not self.owners or source.owner in self.owners)
            and (not self.tags or bool(set(self.tags) & set(source.tags)))
            for source in egress.sources
        )

    def touches(self, egress: Egress) -> bool:
        """Tell whether the rule speaks for anybody whose data went in, which is enough to forbid."""
        tags = {tag for source in egress.sources for tag in source.tags} | set(egress.tags)
        owners = {source.owner for source in egress.sources}
        return (
            self._is_such(egress)
            and (not self.tags or bool(tags & set(self.tags)))
            and (not self.owners or bool(owners & set(self.owners)))
        )

    def _is_such(self, egress: Egress) -> bool:
        return (
            (not self.kinds or egress.kind in self.kinds)
            and (not self.programs or egress.program in self.programs)
            and (not self.to or egress.to in self.to)
        )

    def __str__(self) -> str:
        said = [f"{name} {', '.join(values)}" for name in _CRITERIA if (values := getattr(self, name))]
        return "; ".join(said) or "everything"


_CRITERIA = ("kinds", "tags", "owners", "programs", "to")


@dataclass(frozen=True)
class Allow(Scope, Rule):
    """Let something leave, if the rule covers every owner and tag whose data went in.

    Example:
        >>> import torch
        >>> from fedlightning.workers import VirtualWorker
        >>> bob = VirtualWorker(id="bob", policy=Rules(Allow(tags=("#toy",))))
        >>> bob.register(torch.ones(2), tags=("#toy",)).get()
        tensor([1., 1.])
    """

    @override
    def judge(self, egress: Egress) -> Decision | None:
        return Decision(True, f"allowed by the owner: {self}") if self.covers_all_of(egress) else None

    __str__ = Scope.__str__


@dataclass(frozen=True)
class Deny(Scope, Rule):
    """Keep something, if the rule touches any owner or tag whose data went in.

    Example:
        >>> import torch
        >>> from fedlightning.workers import RefusedByPolicy, VirtualWorker
        >>> bob = VirtualWorker(id="bob", policy=Rules(Deny(tags=("#genome",)), Allow()))
        >>> genome, age = bob.register(torch.ones(2), tags=("#genome",)), bob.register(torch.ones(2))
        >>> try:
        ...     (genome + age).get()
        ... except RefusedByPolicy as refusal:
        ...     print(refusal.rule)
        denied by the owner: tags #genome
    """

    @override
    def judge(self, egress: Egress) -> Decision | None:
        return Decision(False, f"denied by the owner: {self}") if self.touches(egress) else None

    __str__ = Scope.__str__


class Rules(Policy):
    """Follow the first rule that has something to say, and otherwise a policy.

    Args:
        *rules: In the order in which they are asked.
        otherwise: What holds where no rule speaks; private data stays, if none is given.

    Raises:
        TypeError: One of them is no rule, or ``otherwise`` is no policy.

    Example:
        >>> policy = Rules(Deny(tags=("#genome",)), Allow(kinds=("data",), owners=("charite",)))
        >>> policy
        Rules(Deny(tags #genome), Allow(kinds data; owners charite), otherwise=KeepData())
    """

    def __init__(self, *rules: Rule, otherwise: Policy | None = None) -> None:
        for rule in rules:
            if isinstance(rule, type) or not callable(getattr(rule, "judge", None)):
                raise TypeError(f"{rule!r} is no rule: use Allow(), Deny(), Ask(), AtLeast() or Through()")
        self.rules = rules
        self.otherwise: Policy = KeepData() if otherwise is None else otherwise
        check_policy(self.otherwise)

    @override
    def decide(self, egress: Egress) -> Decision:
        for rule in self.rules:
            decision = rule.judge(egress)
            if decision is not None:
                return decision
        return self.otherwise.decide(egress)

    def __repr__(self) -> str:
        said = [f"{type(rule).__name__}({rule})" for rule in self.rules]
        return f"Rules({', '.join([*said, f'otherwise={self.otherwise!r}'])})"
