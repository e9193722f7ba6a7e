"""What a worker does with a message. How the message came, and from whom, is the transport's part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fedlightning.pointers.messages import (
    Backward,
    Delete,
    Describe,
    Execute,
    Get,
    GradientPresence,
    Message,
    Put,
    Run,
    Search,
)
from fedlightning.workers.errors import RefusedByPolicy, RemoteError, WorkerError
from fedlightning.workers.ledger import Ledger
from fedlightning.workers.operating import run_operation
from fedlightning.workers.payload import payload_bytes
from fedlightning.workers.policy import Egress, EgressKind, Policy
from fedlightning.workers.programs import Program, find_program
from fedlightning.workers.store import DERIVED, PLAIN, Label, ObjectStore


class Host:
    """Handle the messages of one worker; a process may hold many.

    Args:
        worker_id: The worker's name.
        policy: What may leave.
        ledger: Where traffic is entered.
    """

    def __init__(self, worker_id: str, policy: Policy, ledger: Ledger) -> None:
        self.worker_id = worker_id
        self.policy = policy
        self.ledger = ledger
        self.store = ObjectStore()
        self._handlers: dict[type, Callable[[Any], Any]] = {
            Execute: self._execute,
            Put: self._put,
            Backward: self._backward,
            Run: self._run,
            Get: self._get,
            Delete: self._delete,
            Search: self._search,
            Describe: lambda message: self.store.describe(message.object_id),
        }

    def handle(self, message: Message) -> Any:
        """Do what a message asks and return the answer.

        Raises:
            WorkerError: A program or operation raised, or the policy refused; nothing else comes out of here.
        """
        try:
            return self._handlers[type(message)](message)
        except WorkerError:
            raise
        except Exception as error:
            raise RemoteError(self.worker_id, f"message {type(message).__name__}", error) from error

    def release(self, object_id: int) -> None:
        """Let go of an object that no pointer needs any more."""
        self.store.drop(object_id)

    def _put(self, message: Put) -> Any:
        label = Label(message.tags, message.description, message.private, message.owner)
        self.store.put(message.object_id, message.value, PLAIN if label == PLAIN else label)
        if not message.private:
            # What a data owner registers was there before; only what the controller sends has arrived.
            item = message.description or type(message.value).__name__
            self.ledger.receive(item, payload_bytes(message.value), message.round)
        return self.store.describe(message.object_id)

    def _execute(self, message: Execute) -> Any:
        return run_operation(self, message)

    def _backward(self, message: Backward) -> GradientPresence:
        resolve = self.store.resolve
        torch.autograd.backward(
            resolve(message.tensors),
            resolve(message.gradients),
            retain_graph=message.retain_graph,
            create_graph=message.create_graph,
            inputs=resolve(message.inputs),
        )
        return GradientPresence(self.store.with_gradient())

    def _run(self, message: Run) -> Any:
        program = self._program(message.program)
        args, kwargs = self.store.resolve(message.args), self.store.resolve(message.kwargs)
        private = self.store.any_private((message.args, message.kwargs))
        received = payload_bytes((message.args, message.kwargs))
        if received:
            self.ledger.receive(program.name, received, message.round)
        try:
            result = program.function(*args, **kwargs)
        except Exception as error:
            raise RemoteError(self.worker_id, f"program {program.name!r}", error) from error
        if message.keep:
            self.store.put(message.result_id, result, DERIVED if private else PLAIN)
            return self.store.describe(message.result_id)
        self.let_out(program.returns, result, private=private, program=program.name, round=message.round)
        return result

    def _program(self, name: str) -> Program:
        program = find_program(name)
        if program is None:
            remedy = "Import the module that registers it at the worker, or check the name."
            raise RefusedByPolicy(self.worker_id, f"program {name!r}", "it is not registered here", remedy)
        return program

    def _get(self, message: Get) -> Any:
        value = self.store.get(message.object_id)
        label = self.store.label(message.object_id)
        self.let_out(
            _kind(value),
            value,
            label=label,
            private=label.private,
            object_id=message.object_id,
            round=message.round,
        )
        self.store.drop(message.object_id)
        return value

    def _delete(self, message: Delete) -> None:
        for object_id in message.object_ids:
            self.store.drop(object_id)

    def _search(self, message: Search) -> Any:
        return tuple(map(self.store.describe, self.store.search(message.tags)))

    def let_out(
        self,
        kind: EgressKind,
        value: Any,
        *,
        private: bool,
        round: int | None,
        label: Label = PLAIN,
        object_id: int | None = None,
        program: str | None = None,
    ) -> None:
        """Ask the policy whether something may leave, and enter its answer in the ledger.

        Raises:
            RefusedByPolicy: It may not.
        """
        egress = Egress(
            kind=kind,
            worker=self.worker_id,
            object_id=object_id,
            program=program,
            nbytes=payload_bytes(value),
            description=label.description or type(value).__name__,
            tags=label.tags,
            private=private,
            round=round,
        )
        decision = self.policy.decide(egress)
        self.ledger.record(egress, decision)
        if not decision.allowed:
            raise self._refusal(egress, decision.rule)

    def _refusal(self, egress: Egress, rule: str) -> RefusedByPolicy:
        what = f"object {egress.object_id}" if egress.program is None else f"the result of {egress.program!r}"
        subject = f"to let {what} ({egress.description}, {egress.kind}) leave"
        remedy = f"Its policy is {self.policy!r}: run a program there that returns metrics, or ask the owner."
        return RefusedByPolicy(self.worker_id, subject, rule, remedy)


def _kind(value: Any) -> EgressKind:
    return "module" if isinstance(value, (nn.Module, torch.optim.Optimizer)) else "data"
