"""Which tensors of a worker have a gradient, as far as the controller knows: asking costs messages."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedlightning.pointers.location import Answer


@dataclass(frozen=True)
class Change:
    """What is to be known of a backward to judge what it tells.

    Attributes:
        number: Of the changes that began, which one.
        alone: No other was on its way to the worker when it began.
    """

    number: int
    alone: bool


class KnownGradients:
    """Remember what the last backward told, as long as nothing has happened since that it could not tell of.

    Several threads may use one worker. Of two backwards that were on their way at once, nobody here knows
    which came first; and a reply that another change has overtaken is old. None is believed; then the worker
    is asked for each gradient until a backward is undisturbed.

    """

    __slots__ = ("_changes", "_expected", "_lock", "_on_their_way", "_present")

    def __init__(self) -> None:
        self._present: set[int] | None = set()
        self._changes = 0
        self._on_their_way = 0
        self._lock = Lock()
        self._expected: tuple[Change, Answer] | None = None

    @property
    def present(self) -> Set[int] | None:
        """Identifiers of the tensors that have a gradient; None if the worker must be asked.

        As long as it is the same object, those that have a gradient have the same one.
        """
        expected = self._expected
        if expected is not None:
            try:
                self.learn(*expected)
            finally:
                with self._lock:
                    # Another backward may have begun meanwhile, whose answer is the one to wait for.
                    if self._expected is expected:
                        self._expected = None
        return self._present

    @contextmanager
    def changing(self) -> Iterator[Change]:
        """Give what `learn` needs to know of a backward, which is brought to the worker inside.

        If that fails, which gradients it had computed by then is not known.
        """
        with self._lock:
            self._changes += 1
            change = Change(self._changes, alone=self._on_their_way == 0)
            self._on_their_way += 1
        try:
            yield change
        except BaseException:
            self.forget()
            raise
        finally:
            with self._lock:
                self._on_their_way -= 1

    def learn(self, change: Change, answer: Answer) -> None:
        """Wait for what a backward tells, and take it over.

        Args:
            change: What `changing` gave.
            answer: A stand-in for the `GradientPresence`.

        Raises:
            WorkerError: The backward failed; which gradients it had computed by then is not known.
        """
        try:
            object_ids = answer.wait().object_ids
        except BaseException:
            self.forget()
            raise
        with self._lock:
            believed = change.alone and change.number == self._changes
            self._present = set(object_ids) if believed else None

    def expect(self, change: Change, answer: Answer) -> None:
        """Note that the answer of a backward will tell, when it has come.

        Args:
            change: What `changing` gave.
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
