"""Ask a person before something leaves. Who that is, and how they are reached, is the owner's affair."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.workers.contents import parts_of
from fedlightning.workers.policy import Decision, Egress
from fedlightning.workers.rules import Rule, Scope


@dataclass(frozen=True)
class Ask(Scope, Rule):
    """Let something leave if the owner says yes.

    Asked whenever the rule touches any owner or tag whose data went in, and only for private values.

    Args:
        approver: Called with the `Egress`, value and all, at the worker; returns whether it may leave. It may
            block until somebody has answered; `ApprovalQueue` does not.

    Raises:
        TypeError: It cannot be called.

    Example:
        >>> from fedlightning.workers import Rules, VirtualWorker
        >>> def approver(egress):  # a person would be asked here
        ...     return egress.value.numel() == 1
        >>> bob = VirtualWorker(id="bob", policy=Rules(Ask(approver)))
        >>> ages = bob.register(torch.tensor([34.0, 58.0]))
        >>> ages.mean().get()
        tensor(46.)
        >>> ages.get()
        Traceback (most recent call last):
        ...
        fedlightning.workers.errors.RefusedByPolicy: ...the owner has not approved it...
    """

    approver: Callable[[Egress], bool]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.approver):
            raise TypeError(f"approver={self.approver!r} cannot be called: give a function or a queue")

    @override
    def judge(self, egress: Egress) -> Decision | None:
        if not egress.private or not self.touches(egress):
            return None
        if self.approver(egress):
            return Decision(True, "approved by the owner")
        return Decision(False, "the owner has not approved it")

    __str__ = Scope.__str__


class ApprovalQueue:
    """Collect what wants to leave, for an owner who looks at it later.

    The first attempt is refused and noted. Once the owner has approved it, the same object or result, with
    the same values, may leave once.

    Args:
        limit: How many requests may wait; further ones are refused without being noted.

    Raises:
        ValueError: The limit is below 1, so that nothing could be asked for.

    Example:
        >>> from fedlightning.workers import Ask, Rules, VirtualWorker
        >>> queue = ApprovalQueue()
        >>> bob = VirtualWorker(id="bob", policy=Rules(Ask(queue)))
        >>> total = bob.register(torch.tensor([1.0, 2.0])).sum()
        >>> total.get()
        Traceback (most recent call last):
        ...
        fedlightning.workers.errors.RefusedByPolicy: ...
        >>> queue.approve(queue.waiting[0])
        >>> total.get()
        tensor(3.)
    """

    def __init__(self, limit: int = 1000) -> None:
        if limit < 1:
            raise ValueError(f"limit={limit} lets no request wait: give at least 1")
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: dict[tuple[Any, ...], Egress] = {}
        self._approved: set[tuple[Any, ...]] = set()

    @property
    def waiting(self) -> tuple[Egress, ...]:
        """What waits for an answer, oldest first, with its value."""
        with self._lock:
            return tuple(self._waiting.values())

    def approve(self, egress: Egress) -> None:
        """Let one of the requests pass, once.

        Args:
            egress: One of `waiting`.

        Raises:
            ValueError: It is none of them, or its value has changed since it was asked for.
        """
        with self._lock:
            key = self._key_of(egress)
            if _key(egress) != key:
                del self._waiting[key]
                raise ValueError(f"{egress.description!r} has changed since it was asked for: ask again")
            del self._waiting[key]
            self._approved.add(key)

    def reject(self, egress: Egress) -> None:
        """Take one of the requests off the list.

        Args:
            egress: One of `waiting`.

        Raises:
            ValueError: It is none of them.
        """
        with self._lock:
            del self._waiting[self._key_of(egress)]

    def __call__(self, egress: Egress) -> bool:
        """Tell whether this was approved; if not, note that it wants to leave."""
        key = _key(egress)
        with self._lock:
            if key in self._approved:
                self._approved.discard(key)
                return True
            if len(self._waiting) < self._limit:
                self._waiting.setdefault(key, egress)
            return False

    def _key_of(self, egress: Egress) -> tuple[Any, ...]:
        for key, waiting in self._waiting.items():
            if waiting is egress:
                return key
        raise ValueError(f"{egress.description!r} does not wait for approval")


def _key(egress: Egress) -> tuple[Any, ...]:
    # The values are part of it: else something harmless could be approved and overwritten before it leaves.
    what = (egress.worker, egress.object_id, egress.program, egress.kind, egress.to)
    return (*what, fingerprint(egress.value))


def fingerprint(value: Any) -> str:
    """Condense the values of an object, those of its tensors and the plain ones, to a short text.

    Args:
        value: A tensor, something that holds tensors, or a plain value such as a number.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts_of(value):
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            flat = part.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        else:
            digest.update(f"{type(part).__name__}{part!r}".encode())
    return digest.hexdigest()
