"""Which tensors of a worker have a gradient, as far as the controller knows: asking costs messages."""

from __future__ import annotations

from collections.abc import Set
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedlightning.pointers.location import Answer


class KnownGradients:
    """Remember what the last backward told, as long as nothing has happened since that it could not tell of.

    Several threads may use one worker. A reply that another change has overtaken is not believed; then the
    worker is asked for each gradient until a backward is undisturbed.

    """

    __slots__ = ("_changes", "_expected", "_lock", "_present")

    def __init__(self) -> None:
        self._present: set[int] | None = set()
        self._changes = 0
        self._lock = Lock()
        self._expected: tuple[int, Answer] | None = None

    @property
    def present(self) -> Set[int] | None:
        """Identifiers of the tensors that have a gradient; None if the worker must be asked.

        As long as it is the same object, those that have a gradient have the same one.
        """
        if self._expected is not None:
            change, answer = self._expected
            object_ids = answer.wait().object_ids
            self._expected = None
            self.learn(change, object_ids)
        return self._present

    def begin_change(self) -> int:
        """Note that a backward begins, and return what `learn` needs to know when it has ended."""
        with self._lock:
            self._changes += 1
            return self._changes

    def learn(self, change: int, object_ids: frozenset[int]) -> None:
        """Take over what a backward told.

        Args:
            change: What `begin_change` returned.
            object_ids: The tensors that had a gradient when it ended.
        """
        with self._lock:
            self._present = set(object_ids) if change == self._changes else None

    def expect(self, change: int, answer: Answer) -> None:
        """Note that the answer of a backward will tell, when it has come.

        Args:
            change: What `begin_change` returned.
            answer: A stand-in for the `GradientPresence`.
        """
        self._expected = (change, answer)

    def note(self, object_id: int, *, has_gradient: bool) -> None:
        """Note that a tensor has been given a gradient, or none."""
        with self._lock:
            self._changes += 1
            if self._present is None:
                return
            if has_gradient:
                self._present = self._present | {object_id}
            else:
                self._present.discard(object_id)

    def forget(self) -> None:
        """Note that any tensor may have got a gradient or lost it."""
        with self._lock:
            self._changes += 1
            self._present = None
