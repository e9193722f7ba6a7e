"""What lifts a label: an aggregate over enough workers, and mechanisms that are plugged in.

An owner's explicit approval is in `approval`. No mechanism is made here: noise for differential privacy is
for a library that is reviewed for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from typing_extensions import override

from fedlightning.workers.policy import Decision, Egress, ResultShape
from fedlightning.workers.rules import Rule, Scope


@dataclass(frozen=True)
class AtLeast(Rule):
    """Let out what the data of at least so many workers went into; keep what fewer contributed to.

    Labels count who contributed, not how much: a controller that keeps to the protocol learns only
    aggregates, one that does not can add the zeros of others to what it is after. Where that is to be feared,
    name the ``programs`` that aggregate, and let contributions come from reviewed programs only.

    Args:
        workers: How many, at least 2.
        programs: Names of the programs whose results count; none means that any result or object does.

    Raises:
        ValueError: Fewer than 2 workers, which would be no aggregate.
        TypeError: No whole number, or programs that are no tuple.

    Example:
        >>> import torch
        >>> from fedlightning.workers import Allow, RefusedByPolicy, Rules, VirtualWorker
        >>> policy = Rules(Allow(to=("carol",)), AtLeast(2))
        >>> alice, bob, carol = (VirtualWorker(id=name, policy=policy) for name in ("alice", "bob", "carol"))
        >>> hers = alice.register(torch.tensor(34.0)).copy().move(carol)
        >>> his = bob.register(torch.tensor(58.0)).copy().move(carol)
        >>> (hers + his).get()
        tensor(92.)
        >>> try:
        ...     hers.get()
        ... except RefusedByPolicy as refusal:
        ...     print(refusal.rule)
        of 1 worker(s), and only aggregates over 2 may leave
    """

    workers: int
    programs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.workers, int) or isinstance(self.workers, bool):
            raise TypeError(f"workers={self.workers!r} is no whole number: say how many must contribute")
        if not isinstance(self.programs, tuple):
            raise TypeError(f"programs={self.programs!r} is no tuple: give the names of programs in one")
        if self.workers < 2:
            raise ValueError(f"workers={self.workers} is no aggregate: at least 2 must contribute")

    @override
    def judge(self, egress: Egress) -> Decision | None:
        if not egress.private:
            return None
        count = len(egress.contributors)
        if count < self.workers:
            return Decision(False, f"of {count} worker(s), and only aggregates over {self.workers} may leave")
        if self.programs and egress.program not in self.programs:
            return Decision(False, f"no result of {', '.join(self.programs)}, which aggregate")
        return Decision(True, f"aggregate over {count} workers, at least {self.workers}")

    def __str__(self) -> str:
        return ", ".join([str(self.workers), *self.programs])


class Mechanism(Protocol):
    """Change a value so that it may leave, such as by clipping and noise within a privacy budget."""

    @property
    def name(self) -> str:
        """What it is and with which parameters, for the ledger."""

    def release(self, value: Any, egress: Egress) -> Any:
        """Return what leaves in place of a value; the value itself must stay unchanged.

        Args:
            value: What was asked for.
            egress: Whose data it comes from, and how it would leave.

        Raises:
            Exception: It may not leave, for instance because the budget is spent. Nothing leaves then.
        """


@dataclass(frozen=True)
class Through(Scope, Rule):
    """Let something leave by way of a mechanism, which changes it.

    Args:
        mechanism: What it passes. A shape that depends on values cannot, and stays.

    Raises:
        TypeError: It is no mechanism.

    Example:
        >>> import torch
        >>> from fedlightning.workers import Rules, VirtualWorker
        >>> class Rounding:
        ...     name = "rounding to tens"
        ...     def release(self, value, egress):
        ...         return (value / 10).round() * 10
        >>> bob = VirtualWorker(id="bob", policy=Rules(Through(Rounding())))
        >>> bob.register(torch.tensor([34.0, 58.0])).get()
        tensor([30., 60.])
    """

    mechanism: Mechanism

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.mechanism, type) or not hasattr(self.mechanism, "release"):
            raise TypeError(f"mechanism={self.mechanism!r} is no mechanism: give one with name and release()")

    @override
    def judge(self, egress: Egress) -> Decision | None:
        if not egress.private or not self.covers_all_of(egress):
            return None
        if isinstance(egress.value, ResultShape):
            return Decision(False, f"a shape cannot pass {self.mechanism.name}")
        return Decision(True, f"through {self.mechanism.name}", self.mechanism)

    __str__ = Scope.__str__
