"""The interface of a worker, through which everything above reaches data and modules.

How a message travels, and what is done with it, is for the implementations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from typing_extensions import Self

from fedlightning.pointers.arguments import handle_of, refer
from fedlightning.pointers.errors import PointerError
from fedlightning.pointers.ids import new_id
from fedlightning.pointers.known_gradients import KnownGradients
from fedlightning.pointers.location import Location, note_place
from fedlightning.pointers.messages import Clear, Delete, Message, Put, Run, Search
from fedlightning.pointers.objects import discard, fetch
from fedlightning.pointers.pointing import point_at
from fedlightning.pointers.rounds import current_round
from fedlightning.pointers.sending import send_tensor
from fedlightning.workers.contents import module_tensors
from fedlightning.workers.ledger import Ledger
from fedlightning.workers.policy import Policy
from fedlightning.workers.programs import program_name
from fedlightning.workers.reply import Reply

_started: defaultdict[str, count[int]] = defaultdict(count)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Say what a worker can do beyond running registered programs.

    Args:
        fine_grained: Single torch operations are offered and cheap enough to be used.
        ships_code: Objects whose class is not installed at the worker can be sent.
    """

    fine_grained: bool
    ships_code: bool


class Worker(ABC):
    """Be a place that holds objects and runs programs on them.

    Args:
        id: Name of the worker, unique among those that work together.
        capabilities: What it can do.
        policy: What may leave it.

    Attributes:
        generation: How many workers of this name there were before.
        known_workers: The living workers that this one was told of, by name.

    Raises:
        ValueError: The name is empty.

    Example:
        >>> import torch
        >>> from fedlightning.workers import VirtualWorker, program
        >>> @program(returns="metrics")
        ... def mean_of(samples):
        ...     return samples.mean().item()
        >>> bob = VirtualWorker(id="bob")
        >>> samples = bob.register(torch.tensor([1.0, 2.0]), tags=("#samples",))
        >>> bob.run(mean_of, samples)
        1.5
        >>> len(bob), len(bob.search("#samples"))
        (1, 1)
    """

    def __init__(self, id: str, *, capabilities: Capabilities, policy: Policy) -> None:
        if not id or not isinstance(id, str):
            raise ValueError(f"id={id!r} is no name for a worker: give a non-empty string, such as id='bob'")
        self.id = id
        self.generation = next(_started[id])
        self.capabilities = capabilities
        self.policy = policy
        self.known_gradients = KnownGradients()
        self.known_workers: WeakValueDictionary[str, Worker] = WeakValueDictionary()
        self._released: deque[int] = deque()
        note_place(self)

    @property
    def pipelining(self) -> bool:
        """Whether the calling thread is in a block of `pipeline`."""
        return False

    def pipeline(self) -> AbstractContextManager[None]:
        """Send what is done in a ``with`` block without waiting for answers, where that saves time.

        Operations on tensors, sending tensors and ``backward`` do not wait then; whoever asks for a shape or
        a value waits for what was sent before. An operation that fails raises at the next point that waits,
        at the latest at the end of the block, and names itself; nothing that was sent after it is done.

        Returns:
            A context manager. In process there is nothing to wait for, and it does nothing.
        """
        return nullcontext()

    @property
    @abstractmethod
    def ledger(self) -> Ledger:
        """The account of the worker's traffic."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the objects that the worker holds."""

    @abstractmethod
    def submit(self, message: Message) -> Reply:
        """Send a message without waiting for its answer; the one door through which everything goes.

        Args:
            message: What to do.

        Returns:
            The answer's stand-in. Its ``wait`` raises `WorkerLost`, `RemoteError` or `RefusedByPolicy`.
        """

    def reaches(self, other: Location) -> bool:
        """Tell whether objects and messages can go from here to another worker, past the controller."""
        return False

    def release(self, object_id: int) -> None:
        """Note that no pointer needs an object any more. Called by finalizers: it must not block."""
        self._released.append(object_id)

    def send(self, value: Any, *, tags: tuple[str, ...] = (), description: str = "") -> Any:
        """Send an object of the controller's own, which the worker then holds until `.get()`.

        Args:
            value: A tensor or any other object the worker can take.
            tags: Words that `search` finds it by.
            description: For people and for the ledger.

        Returns:
            A pointer; the object goes when the last pointer to it goes.

        Raises:
            TypeError: The tags are a single string.
        """
        if isinstance(value, Tensor):
            return send_tensor(value, self, tags=_several(tags), description=description)
        self._check_here(value)
        put = Put(new_id(), value, _several(tags), description, round=current_round())
        return point_at(self, self.submit(put).wait())

    def register(
        self,
        value: Any,
        *,
        owner: str | None = None,
        tags: tuple[str, ...] = (),
        description: str = "",
        keep: bool = True,
    ) -> Any:
        """Place an object of a data owner, private to the worker.

        Args:
            value: The object, which is not copied.
            owner: The data owner's name.
            tags: Words that `search` finds it by.
            description: For people and for the ledger.
            keep: Whether it stays when nobody points to it any more.

        Returns:
            A pointer, for programs that run at the worker. What leaves is decided by the policy.
        """
        put = Put(
            new_id(),
            value,
            _several(tags),
            description,
            private=True,
            owner=owner,
            round=current_round(),
        )
        return point_at(self, self.submit(put).wait(), owned=not keep)

    def run(self, program: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Any:
        """Run a program at the worker and bring its result here, as the kind of egress that it declares.

        Args:
            program: A function registered by `program`, or its name.
            *args: Arguments; pointers, however deep in tuples, lists and dicts, become the worker's objects.
            **kwargs: Likewise.

        Returns:
            What the program returns.

        Raises:
            RemoteError: The program raised.
            RefusedByPolicy: The result may not leave, or the worker does not offer the program.
        """
        return self._called(program, args, kwargs, keep=False)

    def start(self, program: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Any:
        """Run a program at the worker and leave its result there.

        Args:
            program: A function registered by `program`, or its name.
            *args: As for `run`.
            **kwargs: As for `run`.

        Returns:
            A pointer to the result.

        Raises:
            RemoteError: The program raised.
            RefusedByPolicy: The worker does not offer the program.
        """
        return point_at(self, self._called(program, args, kwargs, keep=True))

    def get(self, pointer: Any) -> Any:
        """Bring an object back, if the policy lets it leave; the worker then holds it no longer.

        Args:
            pointer: A pointer to an object of this worker.

        Raises:
            RefusedByPolicy: It may not leave.
            StalePointerError: It was fetched or deleted before.
            ValueError: It is no pointer to this worker.
        """
        self._check_mine(pointer)
        return fetch(pointer._handle)

    def delete(self, *pointers: Any) -> None:
        """Drop objects at the worker.

        Args:
            *pointers: Pointers to objects of this worker.
        """
        for pointer in pointers:
            self._check_mine(pointer)
            discard(pointer._handle)

    def search(self, *tags: str | Iterable[str]) -> list[Any]:
        """Find objects by their tags.

        Args:
            *tags: All of them must be carried; several may be given as one list.

        Returns:
            Pointers that do not own their objects.
        """
        words = tuple(word for tag in tags for word in ((tag,) if isinstance(tag, str) else tag))
        found = self.submit(Search(words, current_round())).wait()
        return [point_at(self, description, owned=False) for description in found]

    def take_released(self) -> tuple[int, ...]:
        """Return the objects that no pointer needs, for an implementation to tell the worker of, once."""
        gone: list[int] = []
        while self._released:
            # Another thread may just have taken the last one.
            with suppress(IndexError):
                gone.append(self._released.popleft())
        return tuple(gone)

    def clear_objects(self) -> Self:
        """Drop what was sent here or computed here; what a data owner registered stays.

        Returns:
            This worker. Pointers to what is gone raise when they are used.
        """
        self.submit(Clear(current_round())).wait()
        self.known_gradients.forget()
        return self

    def add_worker(self, worker: Worker) -> Self:
        """Know another worker by its name, as long as it lives.

        Args:
            worker: The worker; it takes the place of an earlier one of its name.

        Returns:
            This worker.
        """
        self.known_workers[worker.id] = worker
        return self

    def add_workers(self, workers: Iterable[Worker]) -> Self:
        """Know other workers by their names.

        Args:
            workers: The workers.

        Returns:
            This worker.
        """
        for worker in workers:
            self.add_worker(worker)
        return self

    def get_worker(self, id: str | Worker) -> Worker:
        """Return the worker of a name.

        Args:
            id: The name of a known worker, or a worker, which is returned.

        Raises:
            KeyError: No living worker of this name is known here.
        """
        if isinstance(id, Worker):
            return id
        if id == self.id:
            return self
        try:
            return self.known_workers[id]
        except KeyError:
            known = ", ".join(map(repr, sorted(self.known_workers))) or "nobody"
            raise KeyError(
                f"{self.id!r} knows no worker id={id!r}, but {known}: add_worker(...) first"
            ) from None

    def drain_released(self) -> None:
        """Tell the worker which objects no pointer needs; implementations do so before each message."""
        if self._released:
            self.submit(Delete(self.take_released(), current_round()))

    def _called(
        self, program: Callable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any], *, keep: bool
    ) -> Any:
        # A program may compute gradients of tensors that pointers lead to.
        self.known_gradients.forget()
        try:
            return self.submit(self._call(program, args, kwargs, keep=keep)).wait()
        finally:
            self.known_gradients.forget()

    def _call(
        self, program: Callable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any], *, keep: bool
    ) -> Run:
        name, sent_args = program_name(program), refer(args, self)
        sent_kwargs = refer(kwargs, self) if kwargs else kwargs
        return Run(name, sent_args, sent_kwargs, keep, new_id() if keep else 0, current_round())

    def _check_here(self, value: Any) -> None:
        held = module_tensors(value) if isinstance(value, nn.Module) else tree_leaves(value)
        for item in held:
            if (handle := handle_of(item)) is not None:
                said = f"this {type(value).__name__} holds a pointer to {handle.location.id!r}"
                raise PointerError(f"{said}, and only what is here can be sent: bring it here with .get()")

    def _check_mine(self, pointer: Any) -> None:
        handle = handle_of(pointer)
        if handle is None:
            raise ValueError(f"{pointer!r} is no pointer")
        if handle.location is not self:
            raise ValueError(f"{pointer!r} is no pointer to {self.id!r}, but to {handle.location.id!r}")

    def __bool__(self) -> bool:
        # A worker that holds nothing is a worker nevertheless.
        return True

    def __deepcopy__(self, memo: dict[int, Any]) -> Worker:
        # A worker is a place: a copied pointer still points there.
        return self


def _several(tags: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(tags, str):
        # As a tuple it would be its letters, and a rule for the tag would never apply.
        raise TypeError(f"tags={tags!r} is a string: give a tuple, tags=({tags!r},)")
    return tuple(tags)
