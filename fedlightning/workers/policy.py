"""What may leave a worker: the question, and the two policies everybody needs. Others are in `rules`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

from typing_extensions import override

if TYPE_CHECKING:
    from fedlightning.workers.declassify import Mechanism

EgressKind: TypeAlias = Literal["data", "module", "metrics", "metadata"]
EGRESS_KINDS: tuple[EgressKind, ...] = get_args(EgressKind)
CONTROLLER = "controller"


@dataclass(frozen=True, slots=True)
class Source:
    """Name a data owner's contribution to a value.

    Args:
        worker: Name of the worker where it was registered.
        owner: The data owner's name, if it has one.
        tags: The tags that it was registered with.
        policy: The rules of that worker. They go where the data goes, and are asked there too.
        certain: Whether it did contribute, or only was at hand when a program could have kept some of it.
    """

    worker: str
    owner: str | None
    tags: tuple[str, ...]
    # A policy of the user's own need not be hashable.
    policy: Policy = field(repr=False, hash=False)
    certain: bool = True


Label: TypeAlias = frozenset[Source]
"""Whose data a value was computed from; empty for what the controller itself sent."""

PUBLIC: Label = frozenset()


@dataclass(frozen=True, slots=True)
class ResultShape:
    """Stand for a shape that depends on private values, as the value of an `Egress`.

    Args:
        operation: The operation that would show it.
        kernel: The kernel of torch that reads the values.
    """

    operation: str
    kernel: str


@dataclass(frozen=True, slots=True)
class Egress:
    """Describe something that is about to leave a worker.

    Args:
        kind: ``data`` (samples, tensors), ``module`` (and optimizer states), ``metrics`` or ``metadata``.
        worker: Name of the worker.
        object_id: Identifier of the object; None for a program's result.
        program: Name of the program or operation whose result it is; None for an object.
        nbytes: Its size on the wire, in bytes.
        description: For people.
        tags: The object's own tags.
        round: Federated round, or None outside of rounds.
        sources: Whose data it was computed from.
        to: Name of the worker that it would go to, or ``controller``.
        advice: What the asker could do instead; empty if nothing more is known than `RefusedByPolicy` says.
        value: The thing itself, for an owner who wants to see what would leave.
    """

    kind: EgressKind
    worker: str
    object_id: int | None
    program: str | None
    nbytes: int
    description: str
    tags: tuple[str, ...]
    round: int | None
    sources: Label = PUBLIC
    to: str = CONTROLLER
    advice: str = ""
    value: Any = field(default=None, repr=False, compare=False)

    @property
    def private(self) -> bool:
        """Whether it is a data owner's, or was computed from what is."""
        return bool(self.sources)

    @property
    def contributors(self) -> frozenset[str]:
        """Names of the workers whose data it was certainly computed from."""
        return frozenset(source.worker for source in self.sources if source.certain)


@dataclass(frozen=True, slots=True)
class Decision:
    """Say whether something may leave.

    Args:
        allowed: Whether it may.
        rule: The rule that says so, for the ledger and for errors.
        mechanism: What it has to pass first, such as noise; None to leave as it is.
    """

    allowed: bool
    rule: str
    mechanism: Mechanism | None = None


class Policy(Protocol):
    """Decide what may leave a worker. It is given to a worker when that is made, and stays.

    Example:
        >>> import torch
        >>> from fedlightning.workers import VirtualWorker
        >>> class OnlyScalars(Policy):
        ...     def decide(self, egress):
        ...         return Decision(egress.nbytes <= 8, "one number at a time")
        >>> bob = VirtualWorker(id="bob", policy=OnlyScalars())
        >>> bob.register(torch.tensor([34.0, 58.0])).mean().get()
        tensor(46.)
    """

    def decide(self, egress: Egress) -> Decision:
        """Judge one object or result that is about to leave.

        Args:
            egress: What it is.
        """


def check_policy(policy: object) -> None:
    """Make sure that something is a policy.

    Raises:
        TypeError: It has no ``decide``, or it is a class.
    """
    if isinstance(policy, type) or not callable(getattr(policy, "decide", None)):
        raise TypeError(f"policy={policy!r} is no policy: give an instance, such as KeepData() or Rules(...)")


EVERYTHING = "everything may leave"
"""The rule of `AllowAll`."""


@dataclass(frozen=True)
class AllowAll(Policy):
    """Let everything leave: for trying things out, and for simulations where nobody's data is at stake.

    What is registered at a worker with this policy gets no label, which costs nothing.

    Example:
        >>> import torch
        >>> from fedlightning.workers import VirtualWorker
        >>> bob = VirtualWorker(id="bob", policy=AllowAll())
        >>> bob.register(torch.ones(2)).get()
        tensor([1., 1.])
    """

    @override
    def decide(self, egress: Egress) -> Decision:
        return Decision(True, EVERYTHING)


@dataclass(frozen=True)
class KeepData(Policy):
    """Keep private data at its worker; model updates, metrics and metadata of reviewed programs may leave.

    Example:
        >>> import torch
        >>> from fedlightning.workers import RefusedByPolicy, VirtualWorker
        >>> bob = VirtualWorker(id="bob", policy=KeepData())
        >>> ages = bob.register(torch.tensor([34.0, 58.0]))
        >>> try:
        ...     ages.mean().get()
        ... except RefusedByPolicy as refusal:
        ...     print(refusal.rule)
        private data stays at its worker
    """

    @override
    def decide(self, egress: Egress) -> Decision:
        if egress.kind == "data" and egress.private:
            return Decision(False, "private data stays at its worker")
        if egress.kind == "data":
            return Decision(True, "data that is not private")
        return Decision(True, f"{egress.kind} may leave")
