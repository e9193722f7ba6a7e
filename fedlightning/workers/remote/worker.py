"""A worker in a process of its own on this machine: the same interface, over messages that are only data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from threading import get_ident

from typing_extensions import override

from fedlightning.pointers.location import Location
from fedlightning.pointers.messages import Message
from fedlightning.workers.ledger import Ledger
from fedlightning.workers.policy import AllowAll, Policy
from fedlightning.workers.remote.codecs.names import AllowedNames
from fedlightning.workers.remote.codecs.packing import Surroundings
from fedlightning.workers.remote.codecs.travellers import OwnObjects
from fedlightning.workers.remote.connection import Pending, Pipeline
from fedlightning.workers.remote.lent import Lent
from fedlightning.workers.remote.limits import Limits
from fedlightning.workers.remote.process import HostProcess
from fedlightning.workers.remote.protocol import CountObjects, Request, ShowLedger
from fedlightning.workers.reply import Reply
from fedlightning.workers.worker import Capabilities, Worker


class ProcessWorker(Worker):
    """Be a worker in another process of this machine.

    What is sent is copied there. A module or an optimizer that comes back by `.get()` is the object that was
    sent, with its new state; parameters keep their identity. Modules travel by class and constructor
    arguments: torch's own layers, and classes from ``modules`` that call ``save_hyperparameters``.

    The worker ends with `close`, with the end of a ``with`` block, when nothing refers to it any more, and
    with this process. When it has ended or died, every use of it, and of every pointer to it, raises
    `WorkerLost`; a new worker of the same name is another one, with the next generation.

    Args:
        id: Name of the worker.
        policy: What may leave it; everything, if none is given. A dataclass, made anew in the process.
        modules: Python modules or packages whose classes and functions messages may name.
        programs: Python modules to import there, which register their programs; fedlightning's own are
            offered without.
        process: A running process to live in, with others; a process of its own, if none is given.
        threads: Threads that a torch operation may use there; as many as here, if None.
        limits: How much memory and time messages may take there; as much as they like, if None.

    Raises:
        ValueError: The name is empty, or an argument is out of range.
        UnsendableError: The policy cannot be told to another process.

    Example:
        >>> import torch
        >>> from fedlightning.workers.remote import ProcessWorker
        >>> with ProcessWorker(id="bob") as bob:
        ...     x = bob.send(torch.tensor([1.0, 2.0]))
        ...     (x + x).get()
        tensor([2., 4.])
    """

    def __init__(
        self,
        id: str,
        policy: Policy | None = None,
        *,
        modules: Sequence[str] = (),
        programs: Sequence[str] = (),
        process: HostProcess | None = None,
        threads: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(
            id,
            capabilities=Capabilities(fine_grained=True, ships_code=False),
            policy=policy or AllowAll(),
        )
        if process is not None and (programs or threads or limits):
            raise ValueError(
                "programs, threads and limits belong to the process: give them to HostProcess(...)"
            )
        self._lent = Lent()
        surroundings = Surroundings(
            names=AllowedNames(modules), travellers=OwnObjects(), place_of=self._lent.place_of
        )
        self._own_process = process is None
        self.process = process or HostProcess(programs, threads=threads, limits=limits)
        self._connection = self.process.open(id, self.generation, self.policy, modules, surroundings)
        self._ready = False
        self._block: Pipeline | None = None
        self._blocks = count(1)

    @override
    def submit(self, message: Message) -> Reply:
        reply = self._request(message)
        self._lent.note(message, reply)
        return reply

    @override
    def reaches(self, other: Location) -> bool:
        """Tell whether another worker lives in the same process: others get objects from the controller."""
        return isinstance(other, ProcessWorker) and other.process is self.process

    @override
    @contextmanager
    def pipeline(self) -> Iterator[None]:
        if self._block is not None:
            raise RuntimeError(
                f"worker {self.id!r} is in a pipeline already: blocks cannot be nested, nor be open in two "
                f"threads at once"
            )
        block = self._block = Pipeline(next(self._blocks))
        try:
            yield
            self._connection.receive_all()
        finally:
            self._block = None
        if block.failure is not None:
            raise block.failure

    @property
    @override
    def pipelining(self) -> bool:
        return self._pipeline is not None

    @property
    def _pipeline(self) -> Pipeline | None:
        """The block that the calling thread is in: others wait for their answers."""
        block = self._block
        return block if block is not None and block.thread == get_ident() else None

    def _request(self, message: Message | CountObjects | ShowLedger) -> Pending:
        """Send a request, and with it what no pointer needs: that costs no message of its own."""
        released = self.take_released()
        try:
            pipeline = self._pipeline
            request = Request(message, released, 0 if pipeline is None else pipeline.number)
            reply = self._connection.request(request, pipeline)
        except BaseException:
            self._released.extend(released)
            raise
        self._lent.forget(released)
        if not self._ready:
            self.process.wait_until_ready()
            self._ready = True
        return reply

    @property
    @override
    def ledger(self) -> Ledger:
        """A copy of the worker's account as it is now, fetched with each use."""
        ledger: Ledger = self._request(ShowLedger()).wait()
        return ledger

    @property
    def alive(self) -> bool:
        """Whether the worker is there, as far as is known."""
        return self.process.alive and not self._connection.lost

    def close(self) -> None:
        """End the worker, and its process if it has one of its own; again has no effect."""
        if self._own_process:
            self.process.close()
        else:
            self._connection.close()

    def __enter__(self) -> ProcessWorker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @override
    def __len__(self) -> int:
        return int(self._request(CountObjects()).wait())

    def __repr__(self) -> str:
        if not self.alive:
            return f"<ProcessWorker id:{self.id} (lost)>"
        return f"<ProcessWorker id:{self.id} #objects:{len(self)}>"
