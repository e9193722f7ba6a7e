"""A program's work done for several workers of this process at once, as if each had run it by itself.

What crosses each worker's door is asked of its policy and entered in its ledger, worker by worker; only the
computing is shared. Who computes sees the objects of all of them, as everybody in one process can.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from fedlightning.pointers.rounds import current_round
from fedlightning.workers.departures import let_out
from fedlightning.workers.errors import RemoteError
from fedlightning.workers.labels import Versions
from fedlightning.workers.ledger import Ledger
from fedlightning.workers.payload import payload_bytes
from fedlightning.workers.policy import (
    CONTROLLER,
    EVERYTHING,
    PUBLIC,
    AllowAll,
    Egress,
    EgressKind,
    KeepData,
    Label,
)
from fedlightning.workers.programs import find_program, program_name
from fedlightning.workers.store import Held
from fedlightning.workers.virtual import VirtualWorker
from fedlightning.workers.worker import Worker


def why_not_joint(worker: Worker) -> str:
    """Say why a worker does everything by itself; nothing if its work may be done together with others'.

    Args:
        worker: Any worker.
    """
    if type(worker) is not VirtualWorker:
        return f"{worker.id!r} is a {type(worker).__name__}"
    if type(worker.policy) not in (AllowAll, KeepData):
        return f"{worker.id!r} has the policy {worker.policy!r}"
    return ""


def object_at(worker: VirtualWorker, pointer: Any) -> Any:
    """Return what a pointer names, for work that is done for several workers at once.

    Args:
        worker: Where it is.
        pointer: The pointer.
    """
    (found,) = worker._host.store.resolve([pointer._handle.use()], [])
    return found


@dataclass(frozen=True)
class Baggage:
    """Something that is sent to each worker for the program, and taken back after.

    Args:
        name: Its type, as the ledger has it.
        nbytes: Its size, in bytes; the same both ways.
        value: The thing itself.
        returns: Whether it is fetched, or dropped at the worker.
    """

    name: str
    nbytes: int
    value: Any
    returns: bool = True

    @classmethod
    def of(cls, value: Any, *, returns: bool = True) -> Baggage:
        """Weigh an object."""
        return cls(type(value).__name__, payload_bytes(value), value, returns)


class JointProgram:
    """A program that several workers run together.

    Args:
        program: Registered, as for `Worker.run`.
        baggage: What goes along to each of them.
        arguments: What else of a program's arguments is sent, to be weighed.
    """

    def __init__(self, program: Callable[..., Any], baggage: Sequence[Baggage], arguments: Any) -> None:
        self.name = program_name(program)
        found = find_program(self.name)
        assert found is not None
        self.returns: EgressKind = found.returns
        self.baggage = baggage
        self.argument_bytes = payload_bytes(arguments)

    @property
    def weight(self) -> Hashable:
        """All that a ledger shows of it; the same for two that show the same."""
        baggage = tuple((item.name, item.nbytes, item.returns) for item in self.baggage)
        return self.name, self.returns, self.argument_bytes, baggage


@dataclass(frozen=True)
class Account:
    """What has crossed the door of each of several workers with a joint program, where everything may leave.

    Workers of whom nothing was made yet have no ledger to enter it in: it is kept, once for all, until they
    have one.

    Args:
        joint: The program.
        result_bytes: Size of what it has returned for each; ``None`` where it has raised.
        round: Federated round.
    """

    joint: JointProgram
    result_bytes: int | None
    round: int | None

    @property
    def sent(self) -> int:
        """Bytes that have left each worker."""
        return (self.result_bytes or 0) + sum(item.nbytes for item in self.joint.baggage)

    @property
    def received(self) -> int:
        """Bytes that have come to each worker."""
        return self.joint.argument_bytes + sum(item.nbytes for item in self.joint.baggage)

    def enter(self, ledger: Ledger, worker: str) -> None:
        """Enter it in the ledger of one of them, as `Part.finish` would.

        Args:
            ledger: The ledger.
            worker: Name of the worker.
        """
        joint, round = self.joint, self.round
        for item in joint.baggage:
            ledger.receive(item.name, item.nbytes, round, worker)
        if joint.argument_bytes:
            ledger.receive(joint.name, joint.argument_bytes, round, worker)
        if self.result_bytes is not None:
            ledger.send(joint.returns, joint.name, self.result_bytes, round, EVERYTHING, CONTROLLER)
        for item in reversed(joint.baggage):
            ledger.send("module", item.name, item.nbytes, round, EVERYTHING, CONTROLLER)


class Part:
    """One worker's part in it.

    Args:
        joint: The program.
        worker: The worker.
        pointers: To its own objects that the program works with.

    Attributes:
        objects: These objects.
    """

    def __init__(self, joint: JointProgram, worker: VirtualWorker, pointers: Sequence[Any]) -> None:
        self._joint = joint
        self._host = host = worker._host
        self._found: list[Held] = []
        self.objects = host.store.resolve([pointer._handle.use() for pointer in pointers], self._found)
        self._label: Label = PUBLIC
        self._versions: list[Versions | None] = []
        if host.labels.active:
            self._label = host.labels.of_arguments(self._found)
            self._versions = host.labels.versions_before(self._found, self._label)

    def finish(self, result: Any) -> Any:
        """Enter what has come to the worker, and let the result and what was sent leave it.

        Args:
            result: What the program has returned for this worker.

        Returns:
            The result, as it leaves.

        Raises:
            RefusedByPolicy: Something may not leave.
        """
        joint, host, round = self._joint, self._host, current_round()
        for item in joint.baggage:
            host.ledger.receive(item.name, item.nbytes, round, host.worker_id)
        if joint.argument_bytes:
            host.ledger.receive(joint.name, joint.argument_bytes, round, host.worker_id)
        if self._label:
            host.labels.note_program(self._found, None)
            host.labels.add_to_arguments(self._found, self._label, self._versions)
        result = self._let_out(joint.returns, Baggage.of(result), joint.name)
        for item in reversed(joint.baggage):
            if item.returns:
                self._let_out("module", item)
        return result

    def failed(self, error: Exception) -> RemoteError:
        """Return what the controller may know of what the program has raised for this worker.

        Args:
            error: What it has raised.
        """
        return self._host.failure(
            f"program {self._joint.name!r}", error, sources=self._label, round=current_round()
        )

    def _let_out(self, kind: EgressKind, item: Baggage, program: str | None = None) -> Any:
        host = self._host
        if not self._label and type(host.policy) is AllowAll:
            # Nobody has anything to say about it: as in `Host.let_out`.
            host.ledger.send(kind, program or item.name, item.nbytes, current_round(), EVERYTHING, CONTROLLER)
            return item.value
        egress = Egress(
            kind=kind,
            worker=host.worker_id,
            object_id=None,
            program=program,
            nbytes=item.nbytes,
            description=item.name,
            tags=(),
            round=current_round(),
            sources=self._label,
            value=item.value,
        )
        return let_out(egress, host.policy, host.ledger)
