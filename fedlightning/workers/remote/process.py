"""A process of this machine that holds workers: starting it, watching it, ending it.

What it does is in `server`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from itertools import count
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import torch

from fedlightning.workers.random import derive_seed
from fedlightning.workers.remote.channel import Channel
from fedlightning.workers.remote.codecs.names import AnyNames
from fedlightning.workers.remote.codecs.packing import Surroundings
from fedlightning.workers.remote.codecs.policies import PolicySettings
from fedlightning.workers.remote.connection import Connection, Pending
from fedlightning.workers.remote.errors import BrokenChannelError
from fedlightning.workers.remote.frames import MAX_MESSAGE_BYTES
from fedlightning.workers.remote.launching import end, launch
from fedlightning.workers.remote.limits import Limits
from fedlightning.workers.remote.protocol import OpenWorker, StartUp

_numbers = count()

Channels: TypeAlias = "WeakValueDictionary[int, Channel]"
"""The connections to a process, by their descriptors."""


class HostProcess:
    """Run a process on this machine that holds workers.

    It is a new Python, not a fork, and is reached by sockets that no other process can open. It starts in the
    background, ignores interrupts, and ends with its starter, however that ends.

    Args:
        programs: Python modules to import there, which register their programs. fedlightning's own are
            offered without being listed.
        threads: Threads that a torch operation may use there; as many as here, if None.
        seed: Of its random numbers; drawn from torch's here, if None.
        max_message_bytes: Longer messages are refused on both sides.
        limits: How much memory and time messages may take there; as much as they like, if None.

    Raises:
        ValueError: An argument is out of range.
        RuntimeError: This is no Unix.

    Example:
        >>> import torch
        >>> from fedlightning.workers import ProcessWorker
        >>> with HostProcess(threads=1) as process:
        ...     alice, bob = (ProcessWorker(id=name, process=process) for name in ("alice", "bob"))
        ...     moved = alice.send(torch.ones(2)).move(bob)  # directly: both live in the one process
        ...     moved.get()
        tensor([1., 1.])
    """

    def __init__(
        self,
        programs: Sequence[str] = (),
        *,
        threads: int | None = None,
        seed: int | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        limits: Limits | None = None,
    ) -> None:
        _check(programs, threads, max_message_bytes)
        self.limit = max_message_bytes
        self.start_up_seconds: float | None = None
        self._began = time.perf_counter()
        ours, theirs = socket.socketpair()
        self._process = launch("fedlightning.workers.remote", theirs)
        control = Channel(ours, max_message_bytes)
        # Weak: with the last reference to a worker its connection ends, and with that its objects go.
        self._channels: Channels = WeakValueDictionary({control.connection.fileno(): control})
        self._telling = threading.Lock()
        self._starter = os.getpid()
        self._end = weakref.finalize(self, _end, self._process, self._channels, self._starter)
        threading.Thread(target=_watch, args=(self._process, self._channels), daemon=True).start()
        self._control_channel = control
        self._control = Connection(control, Surroundings(AnyNames()), "process", self.explain)
        self._opening: deque[Pending] = deque()
        self._tell(
            StartUp(
                tuple(programs),
                threads or torch.get_num_threads(),
                derive_seed(torch.initial_seed(), "worker process", next(_numbers)) if seed is None else seed,
                torch.get_default_dtype(),
                max_message_bytes,
                limits or Limits(),
            )
        )

    def open(
        self, worker: str, generation: int, policy: Any, modules: Sequence[str], surroundings: Surroundings
    ) -> Connection:
        """Let the process hold one worker more.

        Args:
            worker: Its name.
            generation: How many workers of this name there were before.
            policy: What may leave it.
            modules: Python modules whose classes and functions messages to it may name.
            surroundings: What this side knows and allows.

        Returns:
            A connection of its own to the worker.

        Raises:
            UnsendableError: The policy cannot be told to the process.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            self._tell(
                OpenWorker(worker, generation, PolicySettings(policy), tuple(modules)), theirs.fileno()
            )
        channel = Channel(ours, self.limit)
        self._channels[ours.fileno()] = channel
        if not self.alive:
            # The watch may have looked through them before this one was there.
            channel.shut_down()
        return Connection(channel, surroundings, worker, self.explain)

    def _tell(self, request: StartUp | OpenWorker, *descriptors: int) -> None:
        # One after the other, in whatever threads: each request is followed by its descriptors.
        with self._telling:
            self._opening.append(self._control.request(request))
            try:
                socket.send_fds(self._control_channel.connection, [b"+"], list(descriptors))
            except OSError:
                # It ended already, which waiting for its answer will tell.
                return

    def wait_until_ready(self) -> None:
        """Wait until the process serves.

        Raises:
            WorkerLost: It ended before.
            RemoteError: It could not do as it was told, such as import a module.
        """
        while True:
            try:
                opened = self._opening.popleft()
            except IndexError:
                # Asked for it and not for the length: another thread may have taken the last one meanwhile.
                return
            opened.wait()
            if self.start_up_seconds is None:
                self.start_up_seconds = time.perf_counter() - self._began

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process and all its workers; again has no effect."""
        self._end()

    def explain(self, noticed: BrokenChannelError) -> str:
        """Say why the process does not answer."""
        if os.getpid() != self._starter:
            reason = "this process is a fork of the one that started it, and may not use its connection"
        elif not self._end.alive:
            reason = "it was closed"
        else:
            reason = self._cause_of_end() or str(noticed)
        return f"worker process {self.pid} is lost: {reason}. All that it held is gone; make a new worker"

    def _cause_of_end(self) -> str:
        # A process that is ending closes all connections, also to its starter, and then takes its time if the
        # machine is busy. One that goes on has only given up the connection to this worker.
        patience = 60.0 if self._control_channel.ended else 1.0
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return ""
        if code == -signal.SIGALRM:
            return "a message took longer than its limits allow"
        return f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"

    def __enter__(self) -> HostProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<HostProcess pid:{self.pid} {'running' if self.alive else 'ended'}>"


def _check(programs: Sequence[str], threads: int | None, max_message_bytes: int) -> None:
    if not hasattr(socket, "send_fds"):
        raise RuntimeError("a HostProcess needs a Unix system (Linux, macOS): use VirtualWorker here")
    if isinstance(programs, str):
        raise ValueError(f"programs={programs!r} is a string: give a list, such as [{programs!r}]")
    if threads is not None and threads < 1:
        raise ValueError(f"threads={threads} is less than 1")
    if max_message_bytes < 2**16:
        raise ValueError(f"max_message_bytes={max_message_bytes} is less than 65536, too little for any work")


def _watch(process: subprocess.Popen[bytes], channels: Channels) -> None:
    """Wait for the process's end, and make it known to whoever waits for an answer."""
    process.wait()
    _shut_down(channels)


def _shut_down(channels: Channels) -> None:
    # By a list that is made in one step: other threads may open workers, or drop them, meanwhile.
    for reference in channels.valuerefs():
        channel = reference()
        if channel is not None:
            channel.shut_down()


def _end(process: subprocess.Popen[bytes], channels: Channels, starter: int) -> None:
    """End the process; its own watch ends it when standard input is closed, whatever it is at."""
    if os.getpid() != starter:
        return
    _shut_down(channels)
    end(process)
