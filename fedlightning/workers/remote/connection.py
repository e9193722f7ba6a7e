"""The controller's end of a connection: requests go out, answers come back in the same order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from typing_extensions import override

from fedlightning.workers.errors import WorkerLost
from fedlightning.workers.remote.channel import Bytes, Channel
from fedlightning.workers.remote.codecs.packing import Surroundings
from fedlightning.workers.remote.errors import BrokenChannelError, MalformedMessageError
from fedlightning.workers.remote.frames import Incoming, encode
from fedlightning.workers.remote.protocol import Answered, Failed
from fedlightning.workers.reply import Reply

# Answers that nobody waits for are taken in when there are more.
_MOST_UNDER_WAY = 256
# Requests of a pipeline are sent several at once: what costs most is to wake the other side up.
_SENT_AT_ONCE = 16


@dataclass
class Pipeline:
    """A block of requests of which those after a failed one are not done.

    Args:
        number: Its number among those of the connection, from 1.

    Attributes:
        failure: What went wrong first.
        thread: The thread whose requests belong to it.
    """

    number: int
    failure: Exception | None = None
    thread: int = field(default_factory=threading.get_ident)


class Pending(Reply):
    """Be the outcome of a request that is under way.

    Args:
        connection: Where the answer will come from.
        pipeline: The block that the request belongs to.

    Attributes:
        outcome: The answer that has come, decoded or not; None before.
        keeps: What must not be gone when the answer is read.
    """

    __slots__ = ("_connection", "_pipeline", "_when_done", "keeps", "outcome")

    def __init__(self, connection: Connection, pipeline: Pipeline | None = None) -> None:
        self._connection = connection
        self._pipeline = pipeline
        self._when_done: Callable[[], object] | None = None
        self.outcome: Answered | Failed | Incoming | None = None
        self.keeps: Any = None

    def take_note(self) -> None:
        """Do what is to be done when the answer has come; again has no effect."""
        if not isinstance(self.outcome, Failed):
            if self._when_done is not None:
                self._when_done()
        elif self._pipeline is not None and self._pipeline.failure is None:
            self._pipeline.failure = self.outcome.error

    def once_done(self, call: Callable[[], object]) -> None:
        """Have something called when the request has been done, but not if it has failed.

        Args:
            call: Calling it again has no effect.
        """
        with self._connection.lock:
            self._when_done = call
            # Another thread, which waits for its own, may have received this answer already.
            if self.done:
                self.take_note()

    @override
    def wait(self) -> Any:
        outcome = self._connection.outcome_of(self)
        if isinstance(outcome, Failed):
            # Of what was not done any more, the reason is what went wrong first.
            raise (self._pipeline and self._pipeline.failure) or outcome.error
        return outcome.value

    @property
    def done(self) -> bool:
        """Whether the answer is here."""
        return self.outcome is not None

    @property
    def in_pipeline(self) -> bool:
        """Whether nobody may ever want to know the answer, unless it is a failure."""
        return self._pipeline is not None


class Connection:
    """Send requests and match the answers to them.

    Threads may share it: each request goes out whole, and whoever waits reads the answers of all. An
    interrupt may come at any moment: answers are told apart by their order alone, and none may be lost by it.

    Args:
        channel: The channel.
        surroundings: What this side knows and allows.
        worker: Name of the worker at the other end, for errors.
        explain: Says why the other side is gone, given what was noticed.

    Attributes:
        lock: Held by whoever sends or receives.
    """

    def __init__(
        self,
        channel: Channel,
        surroundings: Surroundings,
        worker: str,
        explain: Callable[[BrokenChannelError], str],
    ) -> None:
        self._channel = channel
        self._surroundings = surroundings
        self._worker = worker
        self._explain = explain
        self.lock = threading.RLock()
        self._pending: deque[Pending] = deque()
        self._unsent: list[Bytes] = []
        self._loss = ""

    def request(self, value: Any, pipeline: Pipeline | None = None) -> Pending:
        """Send a request.

        Args:
            value: The request.
            pipeline: The block that it belongs to.

        Returns:
            The stand-in of its answer; its ``wait`` raises if the other side is gone.

        Raises:
            UnsendableError: Something in it cannot be sent; nothing was.
        """
        pending = Pending(self, pipeline)
        # Not at a worker, whatever mode the calling code is in: these are our own tensors.
        with self.lock, torch._C.DisableTorchFunction():
            if not self._loss:
                parts = encode(value, self._surroundings, self._channel.limit)
                self._unsent += parts
                # What has tensors goes at once: their memory may change when this returns.
                if pipeline is None or len(self._unsent) >= _SENT_AT_ONCE or len(parts) > 1:
                    self._flush()
            if self._loss:
                pending.outcome = self._failure()
                pending.take_note()
            else:
                self._pending.append(pending)
            while len(self._pending) > _MOST_UNDER_WAY:
                self._receive()
        return pending

    def _flush(self) -> None:
        parts, self._unsent = self._unsent, []
        try:
            self._channel.send(parts, self._receive)
        except BrokenChannelError as error:
            self._lose(error)
        except KeyboardInterrupt:
            self._channel.shut_down()
            self._lose(BrokenChannelError("a message was interrupted while it was sent"))
            raise

    def close(self) -> None:
        """End the connection; what it led to is lost."""
        self._channel.shut_down()

    def receive_all(self) -> None:
        """Receive the answers to all requests that were sent."""
        with self.lock, torch._C.DisableTorchFunction():
            while self._pending:
                self._receive()

    def outcome_of(self, pending: Pending) -> Answered | Failed:
        """Receive answers until a request has its own, and read it."""
        with self.lock, torch._C.DisableTorchFunction():
            while pending.outcome is None:
                self._receive()
            if isinstance(pending.outcome, Incoming):
                pending.outcome = self._decode(pending.outcome)
            return pending.outcome

    def _receive(self) -> None:
        """Receive an answer, if there is none before which an interrupt has kept from being taken note of."""
        if self._unsent:
            self._flush()
        first = self._pending[0] if self._pending else Pending(self)
        if not first.done:
            try:
                # In one step: between the two, an answer could be lost, and the next be taken for it.
                first.outcome = self._channel.receive()
            except BrokenChannelError as error:
                self._lose(error)
            except MalformedMessageError as error:
                first.outcome = Failed(error)
        self._take_note()

    def _take_note(self) -> None:
        while self._pending and self._pending[0].done:
            first = self._pending[0]
            incoming = first.outcome
            if isinstance(incoming, Incoming) and (not first.in_pipeline or incoming.tag == Failed.__name__):
                first.outcome = self._decode(incoming)
            first.take_note()
            # Last: what an interrupt keeps from being done is done before the next answer is received.
            self._pending.popleft()

    def _decode(self, incoming: Incoming) -> Answered | Failed:
        try:
            outcome: Answered | Failed = incoming.decode(self._surroundings)
        except MalformedMessageError as error:
            return Failed(error)
        return outcome

    def _lose(self, error: BrokenChannelError) -> None:
        self._loss = self._loss or self._explain(error)
        self._unsent = []
        for pending in self._pending:
            if not pending.done:
                pending.outcome = self._failure()
        self._take_note()

    def _failure(self) -> Failed:
        # An error of its own for each: raising one adds to its traceback.
        return Failed(WorkerLost(self._worker, self._loss))

    @property
    def lost(self) -> bool:
        """Whether the other side is known to be gone."""
        return bool(self._loss)
