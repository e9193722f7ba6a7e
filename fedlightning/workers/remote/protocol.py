"""What the two sides of a connection say to each other: the pointers' messages, in an envelope of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from fedlightning.pointers.messages import (
    GradientPresence,
    Message,
    ObjectDescription,
    Ref,
    TensorDescription,
)
from fedlightning.workers.remote.codecs.packing import Unpacker
from fedlightning.workers.remote.codecs.records import record
from fedlightning.workers.remote.codecs.registry import register
from fedlightning.workers.remote.errors import MalformedMessageError
from fedlightning.workers.remote.limits import Limits

C = TypeVar("C", bound=type)


def _part(kind: C) -> C:
    """Let a part of the protocol cross the wire under its short name: every message has some."""
    return record(kind, tag=kind.__name__)


@_part
@dataclass(frozen=True, slots=True)
class Request:
    """Ask a worker to do something.

    Args:
        message: What to do.
        released: Objects that no pointer needs any more, dropped before.
        pipeline: Number of the block of requests that it belongs to: when one of them has failed, those after
            it are not done. 0 for a request of its own.
    """

    message: Any
    released: tuple[int, ...] = ()
    pipeline: int = 0


@_part
@dataclass(frozen=True, slots=True)
class Answered:
    """Bring the answer to a request."""

    value: Any


@_part
@dataclass(frozen=True, slots=True)
class Failed:
    """Bring what went wrong with a request."""

    error: Any


@_part
@dataclass(frozen=True, slots=True)
class CountObjects:
    """Ask how many objects a worker holds."""


@_part
@dataclass(frozen=True, slots=True)
class ShowLedger:
    """Ask for a worker's ledger."""


@_part
@dataclass(frozen=True, slots=True)
class OpenWorker:
    """Ask a process to hold one worker more, reached by the connection that comes along.

    Args:
        worker: Its name.
        generation: How many workers of this name there were before.
        policy: What may leave it.
        modules: Python modules whose classes and functions messages may name.
    """

    worker: str
    generation: int
    policy: Any
    modules: tuple[str, ...]


@_part
@dataclass(frozen=True, slots=True)
class StartUp:
    """Tell a new process what it is to be.

    Args:
        programs: Python modules to import, which register their programs.
        threads: Threads that an operation may use.
        seed: Of its random numbers.
        default_dtype: As the controller's.
        max_message_bytes: Longer messages are refused.
        limits: How much memory and time messages may take.
    """

    programs: tuple[str, ...]
    threads: int
    seed: int
    default_dtype: Any
    max_message_bytes: int
    limits: Limits


def _unpack_ref(items: list[Any], unpacker: Unpacker) -> Ref:
    (object_id,) = items
    if type(object_id) is not int:
        raise MalformedMessageError(f"{object_id!r:.80} is no identifier of an object")
    return Ref(object_id)


for _kind in (*get_args(Message), TensorDescription, ObjectDescription, GradientPresence):
    _part(_kind)
# By the shortest way: messages consist of them.
register(Ref, Ref.__name__, lambda ref, packer: [ref.object_id], _unpack_ref)
