"""One process of a simulation as the controller knows it. What it does is in `resident`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import weakref
from typing import Any

from fedlightning.strategy.processes.line import Line
from fedlightning.strategy.processes.messages import Several
from fedlightning.strategy.processes.packing import pack, unpack
from fedlightning.workers.remote.launching import end, launch


class ProcessEnded(RuntimeError):
    """A process is not there any more."""


class Process:
    """Start a process, which waits for messages; it ends with its starter, however that ends.

    It is a new Python, not a fork, which torch's autograd does not survive; no script is run again.

    Raises:
        RuntimeError: This is no Unix.
    """

    def __init__(self) -> None:
        if not hasattr(socket, "send_fds"):
            raise RuntimeError("processes=... need a Unix system (Linux, macOS): leave them out here")
        ours, theirs = socket.socketpair()
        self._process = launch("fedlightning.strategy.processes", theirs)
        self.line = Line(ours)
        self._later: list[bytes] = []
        self._end = weakref.finalize(self, _end, self._process, self.line, os.getpid())

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, and is this process's own."""
        return self._end.alive and self._process.poll() is None

    def tell_later(self, message: bytes) -> None:
        """Send a packed message together with the next one, which takes less than to wake it for each."""
        self._later.append(message)

    def tell(self, message: bytes, descriptor: int | None = None) -> None:
        """Send a packed message.

        Raises:
            ProcessEnded: It is not there any more.
        """
        later, self._later = self._later, []
        try:
            if descriptor is not None:
                for early in later:
                    self.line.send(early)
            elif later:
                message = pack(Several([*later, message]))
            self.line.send(message, descriptor)
        except OSError as error:
            raise ProcessEnded(self._cause()) from error

    def hear(self) -> Any:
        """Wait for its next answer.

        Raises:
            ProcessEnded: It is not there any more.
        """
        try:
            answer, _ = self.line.receive()
        except (EOFError, OSError) as error:
            raise ProcessEnded(self._cause()) from error
        return unpack(answer)

    def close(self) -> None:
        """End the process, whatever it is at; again has no effect."""
        self._end()

    def _cause(self) -> str:
        try:
            code = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return f"process {self.pid} does not answer"
        if code >= 0:
            return f"process {self.pid} has ended with exit code {code}"
        hint = ", as a system does that is out of memory" if -code == signal.SIGKILL else ""
        return f"process {self.pid} was ended by signal {-code}{hint}"


def _end(process: subprocess.Popen[bytes], line: Line, starter: int) -> None:
    if os.getpid() == starter:  # a fork has its own copy of this object, and not the process
        line.close()
        end(process)
