"""Which modules and optimizers of the controller are at a worker: kept here, to come back as themselves.

How they are recognized when they come back is in `codecs.travellers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from fedlightning.pointers.messages import Delete, Execute, Get, Message, Move, Put, Ref, Run
from fedlightning.workers.remote.codecs.optimizers import parameters_of
from fedlightning.workers.remote.connection import Pending


class Lent:
    """Hold what is at one worker, by the identifier of the object there that it belongs to."""

    def __init__(self) -> None:
        self._by_object: dict[int, tuple[Any, ...]] = {}

    def note(self, message: Message, reply: Pending) -> None:
        """Note what a message takes there, or brings back.

        Args:
            message: The message, which was sent.
            reply: Its answer to come.
        """
        kind = type(message)
        if kind is Execute:
            return
        if isinstance(message, Put):
            self._add(message.object_id, _travellers(message.value))
        elif isinstance(message, Run):
            found = _travellers((message.args, message.kwargs))
            reply.keeps = found
            if message.keep:
                self._add(message.result_id, found)
        elif isinstance(message, (Get, Move)):
            # Until it is here. If it may not leave, it stays there, and so here.
            reply.keeps = self._by_object.get(message.object_id)
            reply.once_done(partial(self._by_object.pop, message.object_id, None))
        elif isinstance(message, Delete):
            self.forget(message.object_ids)

    def forget(self, object_ids: Iterable[int]) -> None:
        """Let go of what objects that the worker has dropped were made of."""
        for object_id in object_ids:
            self._by_object.pop(object_id, None)

    def place_of(self, parameter: Tensor) -> tuple[int, int] | None:
        """Return where a parameter is: (identifier of its module there, its position); None if nowhere."""
        # A copy, made in one step: other threads may send and let go meanwhile.
        for object_id, (first, *_) in self._by_object.copy().items():
            for position, own in enumerate(parameters_of(first) if isinstance(first, nn.Module) else ()):
                if own is parameter:
                    return object_id, position
        return None

    def _add(self, object_id: int, found: tuple[Any, ...]) -> None:
        if found:
            self._by_object[object_id] = found


def _travellers(value: Any) -> tuple[Any, ...]:
    return tuple(_find_travellers(value))


def _find_travellers(value: Any) -> Iterator[Any]:
    if isinstance(value, (nn.Module, Optimizer)):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            # Most are references, for which this would be a long way.
            if type(item) is not Ref:
                yield from _find_travellers(item)
    elif isinstance(value, dict):
        yield from _find_travellers(list(value.values()))
