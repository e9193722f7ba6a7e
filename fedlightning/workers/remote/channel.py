"""Messages over a connected stream socket, with none of their bytes copied twice. What they say: `frames`."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from fedlightning.workers.remote.codecs.tensors import bytes_of
from fedlightning.workers.remote.errors import BrokenChannelError, MalformedMessageError
from fedlightning.workers.remote.frames import HEADER_BYTES, Header, Incoming, read_header

Bytes: TypeAlias = bytes | memoryview
"""Of a view, each item is one byte."""

_BUFFER_BYTES = 4 * 2**20
# How many pieces the system takes in one call.
_PIECES = 512
_CHUNK_BYTES = 2**20


class Channel:
    """Send and receive messages.

    Args:
        connection: A connected stream socket, which then belongs to the channel.
        limit: Longer messages are refused, in bytes.
        stall_seconds: Give up on a message whose rest does not arrive for so long; None to wait for ever.
    """

    def __init__(self, connection: socket.socket, limit: int, stall_seconds: int | None = None) -> None:
        self.connection = connection
        self.limit = limit
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        if stall_seconds is not None:
            # By the system, since a timeout of Python's would make every call a poll and a read.
            stall = stall_seconds.to_bytes(8, "little") + bytes(8)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, stall)
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN | select.POLLOUT)

    def send(self, parts: list[Bytes], when_blocked: Callable[[], None] | None = None) -> None:
        """Send the parts of one message.

        Args:
            parts: Bytes, as they are or as a view.
            when_blocked: Called when the other side does not read while it has something to say itself: it
                may be waiting for this side to read first.

        Raises:
            BrokenChannelError: The other side has gone.
        """
        try:
            while parts:
                parts = _rest(parts, self._send_some(parts[:_PIECES], when_blocked))
        except OSError as error:
            raise BrokenChannelError(f"the connection broke while sending: {error}") from error

    def _send_some(self, pieces: list[Bytes], when_blocked: Callable[[], None] | None) -> int:
        try:
            return self.connection.sendmsg(pieces, [], 0 if when_blocked is None else socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._wait(when_blocked)
            return 0

    def _wait(self, when_blocked: Callable[[], None] | None) -> None:
        ((_, event),) = self._readable.poll()
        if event & select.POLLIN and when_blocked is not None:
            when_blocked()

    def receive(self) -> Incoming:
        """Wait for the next message.

        Returns:
            The message, complete but not decoded.

        Raises:
            BrokenChannelError: The other side has gone, or does not follow the protocol.
            MalformedMessageError: It is no message, but the next one can be received.
        """
        header = bytearray(HEADER_BYTES)
        try:
            self._fill(memoryview(header))
            announced = read_header(bytes(header), self.limit)
            structure = bytearray(announced.structure)
            self._fill(memoryview(structure))
            return self._receive_memory(bytes(structure), announced)
        except OSError as error:
            if isinstance(error, BrokenChannelError):
                raise
            raise BrokenChannelError(f"the connection broke while receiving: {error}") from error
        except KeyboardInterrupt:
            if any(header):
                # In the middle of a message: where the next one begins cannot be known any more.
                self.shut_down()
            raise

    def _receive_memory(self, structure: bytes, announced: Header) -> Incoming:
        try:
            incoming = Incoming(structure, announced)
        except MalformedMessageError:
            self._pass_over(announced.memory)
            raise
        for tensor in incoming.tensors:
            self._fill(bytes_of(tensor))
        return incoming

    def _fill(self, view: memoryview) -> None:
        while view.nbytes:
            received = self.connection.recv_into(view, view.nbytes, socket.MSG_WAITALL)
            if received == 0:
                raise BrokenChannelError("the other side has closed the connection")
            view = view[received:]

    def _pass_over(self, count: int) -> None:
        scratch = memoryview(bytearray(min(count, _CHUNK_BYTES)))
        while count:
            self._fill(scratch[: min(count, _CHUNK_BYTES)])
            count -= min(count, _CHUNK_BYTES)

    @property
    def ended(self) -> bool:
        """Whether the other side has closed the connection, with nothing left to receive."""
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def shut_down(self) -> None:
        """End the connection; both sides, and any thread that waits here, learn of it at once."""
        with suppress(OSError):  # the other side was quicker
            self.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection and give its descriptor back."""
        self.shut_down()
        self.connection.close()

    def __del__(self) -> None:
        self.connection.close()


def _rest(pieces: list[Bytes], sent: int) -> list[Bytes]:
    for number, piece in enumerate(pieces):
        if sent < len(piece):
            return [memoryview(piece)[sent:], *pieces[number + 1 :]]
        sent -= len(piece)
    return []
