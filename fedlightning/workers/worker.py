"""The interface of a worker, through which everything above reaches data and modules.

How a message travels, and what is done with it, is for the implementations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedlightning.pointers.arguments import handle_of, refer
from fedlightning.pointers.ids import new_id
from fedlightning.pointers.messages import Delete, Message, Put, Run, Search
from fedlightning.pointers.objects import discard, fetch
from fedlightning.pointers.pointing import point_at
from fedlightning.pointers.rounds import current_round
from fedlightning.pointers.sending import send_tensor
from fedlightning.workers.ledger import Ledger
from fedlightning.workers.policy import Policy
from fedlightning.workers.programs import program_name
from fedlightning.workers.reply import Reply

_started: Counter[str] = Counter()


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

    Raises:
        ValueError: The name is empty.
    """

    def __init__(self, id: str, *, capabilities: Capabilities, policy: Policy) -> None:
        if not id or not isinstance(id, str):
            raise ValueError(f"id={id!r} is no name for a worker: give a non-empty string, such as id='bob'")
        self.id = id
        self.generation = _started[id]
        _started[id] += 1
        self.capabilities = capabilities
        self.policy = policy
        self.leaves_with_grad: frozenset[int] | None = frozenset()
        self._released: deque[int] = deque()

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
        put = Put(new_id(), value, _several(tags), description, round=current_round())
        return point_at(self, self.submit(put).wait())

    def register(
        self, value: Any, *, owner: str | None = None, tags: tuple[str, ...] = (), description: str = ""
    ) -> Any:
        """Place an object of a data owner, private to the worker and kept whether or not anyone points to it.

        Args:
            value: The object, which is not copied.
            owner: The data owner's name.
            tags: Words that `search` finds it by.
            description: For people and for the ledger.

        Returns:
            A pointer, for programs that run at the worker. What leaves is decided by the policy.

        Raises:
            TypeError: The tags are a single string.
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
        return point_at(self, self.submit(put).wait(), owned=False)

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
        return self.submit(self._call(program, args, kwargs, keep=False)).wait()

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
        return point_at(self, self.submit(self._call(program, args, kwargs, keep=True)).wait())

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

    def search(self, *tags: str) -> list[Any]:
        """Find objects by their tags.

        Args:
            *tags: All of them must be carried.

        Returns:
            Pointers that do not own their objects.
        """
        found = self.submit(Search(tags, current_round())).wait()
        return [point_at(self, description, owned=False) for description in found]

    def take_released(self) -> tuple[int, ...]:
        """Return the objects that no pointer needs, for an implementation to tell the worker of, once."""
        gone = []
        while self._released:
            gone.append(self._released.popleft())
        return tuple(gone)

    def drain_released(self) -> None:
        """Tell the worker which objects no pointer needs; implementations do so before each message."""
        if self._released:
            self.submit(Delete(self.take_released(), current_round()))

    def _call(
        self, program: Callable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any], *, keep: bool
    ) -> Run:
        name, sent_args, sent_kwargs = program_name(program), refer(args, self), refer(kwargs, self)
        # A program may compute gradients of tensors that pointers lead to: from now on, ask the worker.
        self.leaves_with_grad = None
        return Run(name, sent_args, sent_kwargs, keep, new_id() if keep else 0, current_round())

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
