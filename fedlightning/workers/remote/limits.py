"""How much of the machine a worker process may take, whatever messages ask for; kept by the system."""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from fedlightning.workers.remote.codecs.records import record

# What it takes to tell the controller that there was no memory.
_RESERVE = 2**24
# One for all messages, of which most are of processes without limits.
_NOTHING_TO_KEEP = nullcontext()


@record
@dataclass(frozen=True)
class Limits:
    """Limit the memory and the time that messages may take of a worker process.

    An operation that asks for more memory raises at the worker, which goes on, unless what it was denied is
    something that the libraries below torch cannot do without. A message that takes longer ends the process,
    and with it all its workers: nothing gentler stops a kernel.

    Args:
        memory_bytes: What the process may allocate beyond what it needs to start (Linux only): tensors on the
            CPU, Python objects, the copies that messages make. Memory of accelerators does not count.
        operation_seconds: How long any other message than a program may take, on the clock.
        program_seconds: How long a program may take.

    Raises:
        ValueError: A limit is not positive.
        RuntimeError: The memory is limited on another system than Linux.

    Example:
        >>> import torch
        >>> from fedlightning.workers import Limits, ProcessWorker, RemoteError
        >>> with ProcessWorker(id="bob", limits=Limits(memory_bytes=2**28)) as bob:
        ...     x = bob.send(torch.zeros(1))
        ...     try:
        ...         x.new_zeros(2**40)
        ...     except RemoteError as error:
        ...         print("can't allocate memory" in str(error))
        ...     x.get()
        True
        tensor([0.])
    """

    memory_bytes: int | None = None
    operation_seconds: float | None = None
    program_seconds: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value!r} is not positive: leave it out for no limit")
        if self.memory_bytes is not None and sys.platform != "linux":
            raise RuntimeError(
                f"memory_bytes={self.memory_bytes} cannot be kept on {sys.platform}: use Linux"
            )

    def limit_memory(self) -> None:
        """Keep this process, from now on, from allocating more than it may."""
        if self.memory_bytes is not None:
            most = _allocated_bytes() + self.memory_bytes + _RESERVE
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))

    def keeping_a_reserve(self) -> AbstractContextManager[None]:
        """Leave a reserve of the memory alone in the block, for what must be said after it."""
        return _NOTHING_TO_KEEP if self.memory_bytes is None else self._keeping_a_reserve()

    @contextmanager
    def _keeping_a_reserve(self) -> Iterator[None]:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (most - _RESERVE, most))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))

    def on_the_clock(self, *, program: bool) -> AbstractContextManager[None]:
        """End this process if the block takes longer than it may.

        Args:
            program: Whether a program is run in the block.
        """
        seconds = self.program_seconds if program else self.operation_seconds
        return _NOTHING_TO_KEEP if seconds is None else self._on_the_clock(seconds)

    @contextmanager
    def _on_the_clock(self, seconds: float) -> Iterator[None]:
        # A signal that nobody handles: the system ends the process, whichever kernel is running.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def expect_the_clock() -> None:
    """Let this process be ended by its clock, even if its starter ignores such signals."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _allocated_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status does not tell VmData, which limits of memory build on")
