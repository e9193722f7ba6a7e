"""The controller's end of a connection: requests go out, answers come back in the same order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from typing_extensions import override

from fedlightning.workers.errors import WorkerLost
from fedlightning.workers.remote.channel import Channel
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
    """

    number: int
    failure: Exception | None = None


class Pending(Reply):
    """Be the outcome of a request that is under way.

    Args:
        connection: Where the answer will come from.
        pipeline: The block that the request belongs to.

    Attributes:
        keeps: What must not be gone when the answer is read.
        when_done: Called when the request has been done, but not if it has failed.
    """

    __slots__ = ("_connection", "_outcome", "_pipeline", "keeps", "when_done")

    def __init__(self, connection: Connection, pipeline: Pipeline | None = None) -> None:
        self._connection = connection
        self._outcome: Answered | Failed | Incoming | None = None
        self._pipeline = pipeline
        self.keeps: Any = None
        self.when_done: Callable[[], object] | None = None

    def settle(self, outcome: Answered | Failed | Incoming) -> None:
        """Take the answer that has come, decoded or not; answers come in the order of the requests."""
        self._outcome = outcome
        if not isinstance(outcome, Failed):
            if self.when_done is not None:
                self.when_done()
        elif self._pipeline is not None and self._pipeline.failure is None:
            self._pipeline.failure = outcome.error

    @override
    def wait(self) -> Any:
        if self._outcome is None:
            self._connection.receive_until(self)
        if isinstance(self._outcome, Incoming):
            self._outcome = self._connection.decode(self._outcome)
        assert self._outcome is not None
        if isinstance(self._outcome, Failed):
            # Of what was not done any more, the reason is what went wrong first.
            raise (self._pipeline and self._pipeline.failure) or self._outcome.error
        return self._outcome.value

    @property
    def done(self) -> bool:
        """Whether the answer is here."""
        return self._outcome is not None

    @property
    def in_pipeline(self) -> bool:
        """Whether nobody may ever want to know the answer, unless it is a failure."""
        return self._pipeline is not None


class Connection:
    """Send requests and match the answers to them.

    Threads may share it: each request goes out whole, and whoever waits reads the answers of all.

    Args:
        channel: The channel.
        surroundings: What this side knows and allows.
        worker: Name of the worker at the other end, for errors.
        explain: Says why the other side is gone, given what was noticed.
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
        self._lock = threading.RLock()
        self._pending: deque[Pending] = deque()
        self._unsent: list[Any] = []
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
        with self._lock, torch._C.DisableTorchFunction():
            if not self._loss:
                parts = encode(value, self._surroundings, self._channel.limit)
                self._unsent += parts
                # What has tensors goes at once: their memory may change when this returns.
                if pipeline is None or len(self._unsent) >= _SENT_AT_ONCE or len(parts) > 1:
                    self._flush()
            if self._loss:
                pending.settle(self._failure())
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
        with self._lock, torch._C.DisableTorchFunction():
            while self._pending:
                self._receive()

    def decode(self, incoming: Incoming) -> Answered | Failed:
        """Read an answer that has come."""
        with self._lock, torch._C.DisableTorchFunction():
            try:
                outcome: Answered | Failed = incoming.decode(self._surroundings)
            except MalformedMessageError as error:
                return Failed(error)
            return outcome

    def receive_until(self, pending: Pending) -> None:
        """Receive answers until a request has its own."""
        with self._lock, torch._C.DisableTorchFunction():
            while not pending.done:
                self._receive()

    def _receive(self) -> None:
        if self._unsent:
            self._flush()
        try:
            incoming = self._channel.receive()
        except BrokenChannelError as error:
            self._lose(error)
        except MalformedMessageError as error:
            self._settle_next(Failed(error))
        else:
            needless = self._pending and self._pending[0].in_pipeline and incoming.tag != Failed.__name__
            self._settle_next(incoming if needless else self.decode(incoming))

    def _settle_next(self, outcome: Answered | Failed | Incoming) -> None:
        if self._pending:
            self._pending.popleft().settle(outcome)

    def _lose(self, error: BrokenChannelError) -> None:
        self._loss = self._loss or self._explain(error)
        self._unsent = []
        while self._pending:
            self._pending.popleft().settle(self._failure())

    def _failure(self) -> Failed:
        # An error of its own for each: raising one adds to its traceback.
        return Failed(WorkerLost(self._worker, self._loss))

    @property
    def lost(self) -> bool:
        """Whether the other side is known to be gone."""
        return bool(self._loss)
