"""Which tensors of a worker have a gradient, as far as the controller knows: asking costs messages."""

from __future__ import annotations

from threading import Lock


class KnownGradients:
    """Remember what the last backward told, as long as nothing has happened since that it could not tell of.

    Several threads may use one worker. A reply that another change has overtaken is not believed; then the
    worker is asked for each gradient until a backward is undisturbed.

    Attributes:
        present: Identifiers of the tensors that have a gradient; None if the worker must be asked.
    """

    __slots__ = ("_changes", "_lock", "present")

    def __init__(self) -> None:
        self.present: frozenset[int] | None = frozenset()
        self._changes = 0
        self._lock = Lock()

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
            self.present = object_ids if change == self._changes else None

    def note(self, object_id: int, *, has_gradient: bool) -> None:
        """Note that a tensor has been given a gradient, or none."""
        with self._lock:
            self._changes += 1
            if self.present is not None:
                own = frozenset({object_id})
                self.present = self.present | own if has_gradient else self.present - own

    def forget(self) -> None:
        """Note that any tensor may have got a gradient or lost it."""
        with self._lock:
            self._changes += 1
            self.present = None
