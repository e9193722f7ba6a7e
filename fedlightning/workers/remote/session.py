"""One worker of a process, at the end of its connection: whatever arrives, an answer goes back."""

from __future__ import annotations

import logging
from typing import Any, get_args

from fedlightning.pointers.messages import Execute, Get, Message, Run, TensorDescription
from fedlightning.pointers.promises import changes_its_first_argument
from fedlightning.workers.errors import RemoteError, WorkerError
from fedlightning.workers.host import Host
from fedlightning.workers.policy import Label
from fedlightning.workers.programs import find_program
from fedlightning.workers.remote.channel import Bytes, Channel
from fedlightning.workers.remote.codecs.packing import Surroundings
from fedlightning.workers.remote.errors import BrokenChannelError, MalformedMessageError, UnsendableError
from fedlightning.workers.remote.frames import Incoming, encode
from fedlightning.workers.remote.limits import Limits
from fedlightning.workers.remote.offers import import_offered
from fedlightning.workers.remote.protocol import Answered, CountObjects, Failed, Request, ShowLedger
from fedlightning.workers.store import Card

log = logging.getLogger(__name__)
_MESSAGES = frozenset(get_args(Message))


class Session:
    """Serve the requests of one worker's controller.

    Args:
        channel: The connection.
        host: The worker.
        surroundings: What its messages may name.
        limits: How long they may take; as long as they like, if None.
    """

    def __init__(
        self, channel: Channel, host: Host, surroundings: Surroundings, limits: Limits | None = None
    ) -> None:
        self.channel = channel
        self._host = host
        self._surroundings = surroundings
        self._limits = limits or Limits()
        self._broken_pipeline = 0

    def serve_one(self) -> bool:
        """Receive one request and answer it.

        Returns:
            Whether another may follow.
        """
        try:
            self.channel.send(self._response())
        except BrokenChannelError as error:
            log.info("worker %r: %s", self._host.worker_id, error)
            return False
        return True

    def _response(self) -> list[Bytes]:
        pipeline = 0
        try:
            with self._limits.keeping_a_reserve():
                request = self._take_in(self.channel.receive())
                pipeline = request.pipeline
                with self._limits.on_the_clock(program=type(request.message) is Run):
                    return self._answer(request)
        except BrokenChannelError:
            raise
        except WorkerError as error:
            failure = error
        except MalformedMessageError as error:
            failure = RemoteError(self._host.worker_id, "reading a message", error)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever it is, the controller waits for it
            failure = RemoteError(self._host.worker_id, "a request", _ordinary(error))
        if pipeline:
            # A failed request of another thread's, which is in none, does not mend it.
            self._broken_pipeline = pipeline
        return self._encode(Failed(failure))

    def _take_in(self, incoming: Incoming) -> Request:
        request = incoming.decode(self._surroundings)
        if type(request) is not Request:
            raise MalformedMessageError(f"a {type(request).__name__} is no request")
        for object_id in request.released:
            self._host.release(object_id)
        return request

    def _answer(self, request: Request) -> list[Bytes]:
        if request.pipeline and request.pipeline == self._broken_pipeline:
            skipped = RuntimeError("an earlier request of the same pipeline has failed")
            raise RemoteError(self._host.worker_id, "a request", skipped)
        leaving = self._about_to_leave(request.message)
        value = self._handle(request.message)
        if request.pipeline and type(request.message) is Execute:
            value = self._as_promised(request.message, value)
        try:
            return self._encode(Answered(value))
        except UnsendableError as error:
            if leaving is not None:
                self._host.take_in(*leaving)
            raise RemoteError(self._host.worker_id, "sending the answer", error) from error

    def _as_promised(self, message: Execute, answer: Any) -> Any:
        """Hold a result that is one of the arguments under its promised identifier, too."""
        promised = message.result_ids[0]
        if type(answer) is not TensorDescription or promised in self._host.store.objects:
            return answer
        if changes_its_first_argument(message.operation):
            # The controller knows that it is.
            return answer
        value = self._host.store.get(answer.object_id)
        return self._host.take_in(promised, value, self._host.label_of(answer.object_id))

    def _about_to_leave(self, message: Any) -> tuple[int, Any, Label, Card] | None:
        """Return the object that a message would take away, to be put back if it cannot be sent."""
        store = self._host.store
        if type(message) is not Get or message.object_id not in store.objects:
            return None
        object_id = message.object_id
        return object_id, store.get(object_id), self._host.label_of(object_id), store.card(object_id)

    def _handle(self, message: Any) -> Any:
        if type(message) is CountObjects:
            return len(self._host.store.objects)
        if type(message) is ShowLedger:
            return self._host.ledger
        if type(message) not in _MESSAGES:
            raise MalformedMessageError(f"a {type(message).__name__} is no message")
        if type(message) is Run and find_program(message.program) is None:
            import_offered(message.program)
        return self._host.handle(message)

    def _encode(self, outcome: Answered | Failed) -> list[Bytes]:
        return encode(outcome, self._surroundings, self.channel.limit)


def _ordinary(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
