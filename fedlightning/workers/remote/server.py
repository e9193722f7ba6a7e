"""The inside of a worker process: it serves its workers one message at a time.

It ends with its starter, however that ends.
"""

from __future__ import annotations

import importlib
import os
import selectors
import signal
import socket
import threading
from typing import Any, cast

import torch
from torch import Tensor

from fedlightning.pointers.location import Location, note_place
from fedlightning.workers.errors import RemoteError
from fedlightning.workers.handing_over import Arrival, take_over
from fedlightning.workers.host import Host
from fedlightning.workers.ledger import Ledger
from fedlightning.workers.remote.channel import Channel
from fedlightning.workers.remote.codecs.names import AllowedNames, AnyNames
from fedlightning.workers.remote.codecs.packing import Surroundings
from fedlightning.workers.remote.codecs.travellers import Guests
from fedlightning.workers.remote.errors import BrokenChannelError
from fedlightning.workers.remote.frames import MAX_MESSAGE_BYTES, Incoming, encode
from fedlightning.workers.remote.launching import end_with_starter
from fedlightning.workers.remote.limits import Limits, expect_the_clock
from fedlightning.workers.remote.offers import offer
from fedlightning.workers.remote.protocol import Answered, Failed, OpenWorker, StartUp
from fedlightning.workers.remote.session import Session
from fedlightning.workers.virtual import copied

# The rest of a message that has begun comes at once, or its sender is stuck and holds up the other workers.
_STALL_SECONDS = 30


class Resident:
    """Be a worker as the others in this process know it: somebody to hand objects to.

    Args:
        host: The worker.
    """

    def __init__(self, host: Host) -> None:
        self.id = host.worker_id
        self.generation = host.generation
        self._host = host
        # Of a place, others of this process need no more than to hand objects to it.
        note_place(cast("Location", self))

    def take_over(self, value: Any, arrival: Arrival) -> Any:
        """Place an object that another worker of this process has let out, and describe it."""
        return take_over(self._host, copied(value) if isinstance(value, Tensor) else value, arrival)


class Server:
    """Hold the workers of this process.

    Args:
        control: The connection to the process's starter, who says which workers there are.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = Channel(control, MAX_MESSAGE_BYTES)
        self._limit = MAX_MESSAGE_BYTES
        self._limits = Limits()
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._serve_control)
        self._residents: list[Resident] = []

    def run(self) -> None:
        """Serve until the starter has gone."""
        try:
            while True:
                for key, _ in self._selector.select():
                    key.data()
        except BrokenChannelError:
            return

    def _serve_control(self) -> None:
        incoming = self._control.receive()
        _, descriptors, _, _ = socket.recv_fds(self._control.connection, 1, 1)
        self._control.send(encode(self._do(incoming, descriptors), Surroundings()))

    def _do(self, incoming: Incoming, descriptors: list[int]) -> Answered | Failed:
        try:
            # From the starter, who might as well have started another program: it names what it likes.
            request = incoming.decode(Surroundings(AnyNames()))
            if isinstance(request, StartUp):
                self._start_up(request)
            else:
                self._open(request, *descriptors)
            return Answered(None)
        except Exception as error:  # noqa: BLE001  # whatever it is, the starter waits for it
            return Failed(RemoteError("process", "starting a worker", error))

    def _start_up(self, request: StartUp) -> None:
        torch.set_num_threads(request.threads)
        torch.set_default_dtype(request.default_dtype)
        torch.manual_seed(request.seed)
        self._limit = request.max_message_bytes
        offer(request.programs)
        self._limits = request.limits
        # Last: what the process has taken by now is what it needs to start.
        self._limits.limit_memory()

    def _open(self, request: OpenWorker, descriptor: int) -> None:
        connection = socket.socket(fileno=descriptor)
        for name in request.modules:
            importlib.import_module(name)
        host = Host(request.worker, request.policy, Ledger(), request.generation)
        resident = Resident(host)
        surroundings = Surroundings(
            names=AllowedNames(request.modules), travellers=Guests(), find=host.store.get
        )
        channel = Channel(connection, self._limit, _STALL_SECONDS)
        session = Session(channel, host, surroundings, self._limits)

        def serve() -> None:
            if not session.serve_one():
                self._residents.remove(resident)
                self._selector.unregister(connection)
                session.channel.close()

        self._residents.append(resident)
        self._selector.register(connection, selectors.EVENT_READ, serve)


def main(descriptor: int) -> None:
    """Be a worker process.

    Args:
        descriptor: The socket that leads to its starter.
    """
    # An interrupt is for the controller, which then decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    expect_the_clock()
    threading.Thread(target=end_with_starter, daemon=True).start()
    Server(socket.socket(fileno=descriptor)).run()
    # There is nothing to tidy up, and torch takes a second for it.
    os._exit(0)
