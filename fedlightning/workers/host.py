"""What a worker does with a message. How the message came, and from whom, is the transport's part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedlightning.pointers.errors import PointerError
from fedlightning.pointers.lost_gradients import refuse_gradient
from fedlightning.pointers.messages import (
    Backward,
    Clear,
    Delete,
    Describe,
    Execute,
    Get,
    GradientPresence,
    Message,
    Move,
    ObjectDescription,
    Put,
    Recall,
    Ref,
    Run,
    Search,
    Tag,
)
from fedlightning.pointers.tensor import PointerTensor
from fedlightning.workers.departures import let_out, withheld
from fedlightning.workers.errors import RefusedByPolicy, RemoteError, WorkerError
from fedlightning.workers.handing_over import hand_over, recall, refuse_mixture
from fedlightning.workers.labels import LabelBook, Versions, leaves_of
from fedlightning.workers.ledger import Ledger
from fedlightning.workers.loan import Loan
from fedlightning.workers.operating import run_operation
from fedlightning.workers.payload import payload_bytes
from fedlightning.workers.policy import (
    CONTROLLER,
    EVERYTHING,
    PUBLIC,
    AllowAll,
    Egress,
    EgressKind,
    Label,
    Policy,
    Source,
    check_policy,
)
from fedlightning.workers.programs import Program, find_program
from fedlightning.workers.samples import kept_samples
from fedlightning.workers.store import NAMELESS, Card, Held, MissingObject, ObjectStore, TakenIdentifier


class Host:
    """Handle the messages of one worker; a process may hold many.

    Args:
        worker_id: The worker's name.
        policy: What may leave. It stays: what was computed before a change would have no label.
        ledger: Where traffic is entered.
        generation: How many workers of this name there were before.

    Raises:
        TypeError: The policy is none.
    """

    def __init__(self, worker_id: str, policy: Policy, ledger: Ledger, generation: int = 0) -> None:
        check_policy(policy)
        self.worker_id = worker_id
        self.policy = policy
        self.ledger = ledger
        self.generation = generation
        self.store = ObjectStore((worker_id, generation))
        self.labels = LabelBook()

    def handle(self, message: Message) -> Any:
        """Do what a message asks and return the answer.

        Raises:
            WorkerError: A program or operation raised, or the policy refused; nothing else comes out of here.
        """
        try:
            return _HANDLERS[type(message)](self, message)
        except WorkerError as error:
            if error.__cause__ is None:
                # What is withheld would else be the context of the error that says so.
                error.__context__ = None
            raise
        except (MissingObject, TakenIdentifier, PointerError) as error:
            raise RemoteError(self.worker_id, f"message {type(message).__name__}", error) from error
        except Exception as error:
            action = f"message {type(message).__name__}"
            if self.labels.active:
                raise withheld(self.worker_id, action, error) from None
            raise RemoteError(self.worker_id, action, error) from error

    def release(self, object_id: int) -> None:
        """Let go of an object that no pointer needs any more."""
        self.store.drop(object_id)
        self.labels.forget(object_id)

    def take_in(self, object_id: int, value: Any, label: Label, card: Card = NAMELESS) -> Any:
        """Place an object that has a label already, as one that another worker let out has.

        Args:
            object_id: Its identifier here.
            value: The object.
            label: Whose data it was computed from.
            card: What it is called.

        Returns:
            Its description.
        """
        self.store.put(object_id, value, card)
        self.labels.add(object_id, value, label)
        return self.store.describe(object_id)

    def label_of(self, object_id: int) -> Label:
        """Return whose data an object was computed from, its gradient included."""
        return self.labels.of(object_id, self.store.get(object_id)) if self.labels.active else PUBLIC

    def failure(
        self, action: str, error: Exception, *, sources: Label = PUBLIC, round: int | None = None
    ) -> RemoteError:
        """Make the error that tells the controller that something raised, and of private data no more.

        That it raised is told nevertheless, which is why the ledger has it.

        Args:
            action: What the worker was doing.
            error: What was raised.
            sources: Whose data took part.
            round: Federated round.
        """
        if not sources:
            return RemoteError(self.worker_id, action, error)
        self.ledger.withhold(action, round)
        return withheld(self.worker_id, action, error)

    def let_out(
        self,
        kind: EgressKind,
        value: Any,
        *,
        sources: Label = PUBLIC,
        round: int | None,
        card: Card = NAMELESS,
        object_id: int | None = None,
        program: str | None = None,
        to: str = CONTROLLER,
    ) -> Any:
        """Let something leave, if everybody concerned allows it, and enter it in the ledger.

        Args:
            kind: As what it leaves.
            value: The thing itself.
            sources: Whose data it was computed from.
            round: Federated round.
            card: What it is called.
            object_id: Its identifier, if it is an object.
            program: The program or operation that it is the result of.
            to: Where it goes.

        Returns:
            What leaves: the value, or what a mechanism made of it.

        Raises:
            RefusedByPolicy: It may not.
        """
        if not sources and type(self.policy) is AllowAll:
            item = program or card.description or type(value).__name__
            self.ledger.send(kind, item, payload_bytes(value), round, EVERYTHING, to)
            return value
        advice = kept_samples(value) if sources and kind != "data" else ""
        egress = Egress(
            kind="data" if advice else kind,
            worker=self.worker_id,
            object_id=object_id,
            program=program,
            nbytes=payload_bytes(value),
            description=card.description or type(value).__name__,
            tags=card.tags,
            round=round,
            sources=sources,
            to=to,
            advice=advice,
            value=value,
        )
        return let_out(egress, self.policy, self.ledger)

    def let_object_out(self, object_id: int, round: int | None, to: str = CONTROLLER) -> tuple[Any, Label]:
        """Let an object leave, if everybody concerned allows it; it is still held here.

        Args:
            object_id: Its identifier.
            round: Federated round.
            to: Where it goes: the controller, or the name of another worker.

        Returns:
            What leaves, and the label that goes with it.

        Raises:
            RefusedByPolicy: It may not.
        """
        value, label, card = self.store.get(object_id), self.label_of(object_id), self.store.card(object_id)
        kind = self._kind(value, card)
        leaving = self.let_out(kind, value, sources=label, round=round, card=card, object_id=object_id, to=to)
        return leaving, label

    def run_on_loan(self, loan: Loan, args: Sequence[Any], round: int | None) -> Any:
        """Run a program on objects of the controller's that never enter the store.

        It is for a host without labels, where nobody has to look after what the program does to them; what
        comes and leaves is entered as if they were put here, and fetched after.

        Args:
            loan: The program, with its first arguments: modules, optimizers, lists of them.
            args: Its other arguments, with references to what lies here.
            round: Federated round.
        """
        name, ledger = loan.program, self.ledger
        program = self._program(name)
        for kind, nbytes, _ in loan.weighed():
            ledger.receive(kind, nbytes, round, self.worker_id)
        if received := _sent_along(args):
            ledger.receive(name, received, round, self.worker_id)
        held = self.store.resolve(args, [])
        try:
            result = program.function(*loan.lent, *held)
            return self.let_out(program.returns, result, program=name, round=round)
        except WorkerError:
            raise
        except Exception as error:
            raise self.failure(f"program {name!r}", error) from error
        finally:
            self._give_back(loan, round)

    def _give_back(self, loan: Loan, round: int | None) -> None:
        """Let what was lent leave."""
        for kind, nbytes, value in reversed([*loan.weighed()]):
            if type(self.policy) is AllowAll:
                self.ledger.send("module", kind, nbytes, round, EVERYTHING, CONTROLLER)
            else:
                self.let_out("module", value, round=round)

    def _put(self, message: Put) -> Any:
        card = Card(message.tags, message.description)
        if not message.private:
            # What a data owner registers was there before; only what the controller sends has arrived.
            item = message.description or type(message.value).__name__
            self.ledger.receive(item, payload_bytes(message.value), message.round, self.worker_id)
        description = self.take_in(message.object_id, message.value, self._label_of_new(message), card)
        if message.private:
            self.store.registered.add(message.object_id)
        return description

    def _label_of_new(self, message: Put) -> Label:
        if not message.private or type(self.policy) is AllowAll:
            return PUBLIC
        return frozenset({Source(self.worker_id, message.owner, message.tags, self.policy)})

    def _backward(self, message: Backward) -> GradientPresence:
        roots, gradients, inputs = (list[Held]() for _ in range(3))
        tensors = self.store.resolve(message.tensors, roots)
        grad_tensors = self.store.resolve(message.gradients, gradients)
        leaves = self.store.resolve(message.inputs, inputs)
        label = self.labels.of_operands([*roots, *gradients]) if self.labels.active else PUBLIC
        if label:
            refuse_mixture(self, "backward", [*roots, *gradients, *inputs])
        reached = [*leaves_of(tensors), *(leaves or ())] if label else []
        try:
            torch.autograd.backward(
                tensors,
                grad_tensors,
                retain_graph=message.retain_graph,
                create_graph=message.create_graph,
                inputs=leaves,
            )
        except WorkerError:
            # From further away: a root was a pointer that this worker holds.
            raise
        except Exception as error:  # noqa: BLE001  # raised again, as what the controller may know of it
            failure = self.failure("backward", error, sources=label, round=message.round)
            raise failure from failure.__cause__
        finally:
            self.labels.add_to_gradients(reached, label)
        return GradientPresence(self.store.with_gradient())

    def _run(self, message: Run) -> Any:
        program, found = self._program(message.program), list[Held]()
        args = self.store.resolve_each(message.args, found)
        kwargs = self.store.resolve(message.kwargs, found) if message.kwargs else {}
        label = self.labels.of_arguments(found) if self.labels.active else PUBLIC
        versions: list[Versions | None] = []
        if label:
            refuse_mixture(self, f"program {program.name!r}", found)
            versions = self.labels.versions_before(found, label)
        if received := _sent_along(message.args, message.kwargs):
            self.ledger.receive(program.name, received, message.round, self.worker_id)
        result = None
        try:
            result = program.function(*args, **kwargs)
        except SystemExit as error:
            if label:  # The code can be anything.
                error.args, error.code = (), 1
            raise
        except Exception as error:  # noqa: BLE001  # raised again, as what the controller may know of it
            failure = self.failure(f"program {program.name!r}", error, sources=label, round=message.round)
            raise failure from failure.__cause__
        finally:
            self.labels.note_program(found, result if message.keep else None)
            self.labels.add_to_arguments(found, label, versions)
        if message.keep:
            card = Card(kind="module") if program.returns == "module" else NAMELESS
            return self.take_in(message.result_id, result, label, card)
        return self.let_out(program.returns, result, sources=label, program=program.name, round=message.round)

    def _program(self, name: str) -> Program:
        program = find_program(name)
        if program is None:
            remedy = "Import the module that registers it at the worker, or check the name."
            raise RefusedByPolicy(self.worker_id, f"program {name!r}", "it is not registered here", remedy)
        return program

    def _get(self, message: Get) -> Any:
        held = self.store.get(message.object_id)
        value, _ = self.let_object_out(message.object_id, message.round)
        if isinstance(held, Tensor):
            refuse_gradient(held, f"was fetched from {self.worker_id!r}")
        self.release(message.object_id)
        return value

    def _delete(self, message: Delete) -> None:
        for object_id in message.object_ids:
            self.release(object_id)

    def _tag(self, message: Tag) -> ObjectDescription:
        value = self.store.get(message.object_id)
        if message.tags is not None or message.description is not None:
            if self.label_of(message.object_id):
                raise RefusedByPolicy(
                    self.worker_id,
                    f"to name object {message.object_id}",
                    "what private data is called is its owner's, because rules go by it",
                    "Let the owner register it with these tags.",
                )
            self.store.name(message.object_id, message.tags, message.description)
        card = self.store.card(message.object_id)
        return ObjectDescription(message.object_id, type(value).__name__, card.tags, card.description)

    def _search(self, message: Search) -> Any:
        return tuple(map(self.store.describe, self.store.search(message.tags)))

    def _kind(self, value: Any, card: Card) -> EgressKind:
        if isinstance(value, PointerTensor):
            return "metadata"
        if card.kind != "module" and not isinstance(value, (nn.Module, torch.optim.Optimizer)):
            return "data"
        # Written to by single operations, it is no product of a reviewed program, whatever its class.
        return "data" if self.labels.written_by_operations(value) else "module"

    def _clear(self, _: Clear) -> None:
        self._delete(Delete(tuple(self.store.unregistered())))

    def _describe(self, message: Describe) -> Any:
        return self.store.describe(message.object_id)


def _sent_along(args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> int:
    """Count the bytes that came with a request for a program."""
    # References weigh nothing, and what they lead to is here.
    values = [value for value in args if type(value) is not Ref]
    return payload_bytes((values, kwargs or {})) if values or kwargs else 0


# One table for all hosts: of those that simulate workers, there are thousands.
_HANDLERS: dict[type, Callable[[Host, Any], Any]] = {
    Execute: run_operation,
    Put: Host._put,
    Backward: Host._backward,
    Run: Host._run,
    Get: Host._get,
    Move: hand_over,
    Recall: recall,
    Delete: Host._delete,
    Clear: Host._clear,
    Tag: Host._tag,
    Search: Host._search,
    Describe: Host._describe,
}
