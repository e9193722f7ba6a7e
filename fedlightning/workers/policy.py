"""What may leave a worker: the questions asked and the owner's rules. Enforcing them is the host's part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args

from typing_extensions import override

EgressKind: TypeAlias = Literal["data", "module", "metrics", "metadata"]
EGRESS_KINDS: tuple[EgressKind, ...] = get_args(EgressKind)


@dataclass(frozen=True, slots=True)
class Egress:
    """Describe something that is about to leave a worker.

    Args:
        kind: ``data`` (samples, tensors), ``module`` (and optimizer states), ``metrics`` or ``metadata``.
        worker: Name of the worker.
        object_id: Identifier of the object; None for a program's result.
        program: Name of the program whose result it is; None for an object.
        nbytes: Its size on the wire, in bytes.
        description: For people.
        tags: The object's tags.
        private: Whether it is a data owner's, or was computed from what is.
        round: Federated round, or None outside of rounds.
    """

    kind: EgressKind
    worker: str
    object_id: int | None
    program: str | None
    nbytes: int
    description: str
    tags: tuple[str, ...]
    private: bool
    round: int | None


@dataclass(frozen=True, slots=True)
class Decision:
    """Say whether something may leave, and by which rule."""

    allowed: bool
    rule: str


class Policy(Protocol):
    """Decide what may leave a worker."""

    def decide(self, egress: Egress) -> Decision:
        """Judge one object or result that is about to leave."""


class AllowAll(Policy):
    """Let everything leave: for trying things out, and for simulations where nobody's data is at stake."""

    @override
    def decide(self, egress: Egress) -> Decision:
        return Decision(True, "everything may leave")

    def __repr__(self) -> str:
        return "AllowAll()"


class KeepData(Policy):
    """Keep private data at its worker; model updates, metrics and metadata may leave."""

    @override
    def decide(self, egress: Egress) -> Decision:
        if egress.kind == "data" and egress.private:
            return Decision(False, "private data stays at its worker")
        return Decision(
            True, f"{egress.kind} may leave" if egress.kind != "data" else "data that is not private"
        )

    def __repr__(self) -> str:
        return "KeepData()"
