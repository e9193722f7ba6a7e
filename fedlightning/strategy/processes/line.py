"""A line between the controller and one process: messages in order, and open files with them."""

from __future__ import annotations

import os
import socket
from multiprocessing.connection import Connection

_NOTHING, _FILE = b"-", b"+"


class Line:
    """One end of a line.

    Args:
        connection: One of a pair of sockets; taken over.

    Attributes:
        framed: What can be waited for.

    Example:
        >>> here, there = map(Line, socket.socketpair())
        >>> here.send(b"hello")
        >>> there.receive()
        (b'hello', None)
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self.framed = Connection(os.dup(connection.fileno()))

    def send(self, message: bytes, descriptor: int | None = None) -> None:
        """Send a message, and an open file with it.

        Raises:
            OSError: Nobody is at the other end.
        """
        self.framed.send_bytes((_NOTHING if descriptor is None else _FILE) + message)
        if descriptor is not None:
            socket.send_fds(self._socket, [_FILE], [descriptor])

    def receive(self) -> tuple[bytes, int | None]:
        """Wait for a message, and return it with the open file that came with it.

        Raises:
            EOFError: Nobody is at the other end.
            OSError: Likewise.
        """
        received = self.framed.recv_bytes()
        if received[:1] == _NOTHING:
            return received[1:], None
        _, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        return received[1:], descriptors[0]

    def close(self) -> None:
        """Hang up."""
        self.framed.close()
        self._socket.close()
