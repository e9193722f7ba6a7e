"""One loader of a worker that is alone, read batch by batch as the Trainer would read it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from fedlightning.local.randomness import capture_global_streams, restore_global_streams

Found = Literal["batch", "nothing", "end"]
"""What came out of a loader: a batch; ``None`` in place of one; or that there is none left."""


class Reader:
    """Keep a loader's iterator, and the batches that were fetched but not trained on yet.

    Args:
        loader: The user's loader; iterated as it is, so that random numbers are drawn as in any ``fit``.
        goes_round: Whether it is opened again where it ends before the Trainer's epoch does.
        replays: Whether its place can be found again by passing over what was read before.

    Attributes:
        goes_round: As above; whoever combines several loaders opens them again by himself.
    """

    def __init__(self, loader: Iterable[Any], *, goes_round: bool, replays: bool) -> None:
        self.loader = loader
        self.goes_round = goes_round
        self._replays = replays
        self._iterator: Iterator[Any] = iter(())
        self._waiting: deque[Any] = deque()
        self._fetched = 0
        self._opened_with: dict[str, Any] = {}
        self._started_with: dict[str, Any] = {}
        self._resume: Mapping[str, Any] | None = None

    @property
    def taken(self) -> int:
        """Batches taken since the loader was opened."""
        return self._fetched - len(self._waiting)

    @property
    def resumes(self) -> bool:
        """Whether it is opened next where a checkpoint left it."""
        return self._resume is not None

    def open(self) -> None:
        """Open the loader: from its start, or once where a checkpoint left it."""
        resume, self._resume = self._resume, None
        if resume is None:
            self._reopen()
            return
        now = capture_global_streams()
        restore_global_streams(resume["opened_with"])
        self._reopen()
        if resume["taken"]:
            restore_global_streams(resume["started_with"])
        while self.taken < resume["taken"] and self.fetch() != "end":
            self._waiting.clear()
        restore_global_streams(now)

    def go_back(self) -> None:
        """Open the loader where ``load_state_dict`` has said, if its place can be found again."""
        if self._resume is not None:
            self.open()

    def fetch(self, beyond: int = 0, *, keeps_nothing: bool = True) -> Found:
        """Read ahead, from the loader that was opened last.

        Args:
            beyond: Batches that wait and are spoken for: one more is to wait beside them.
            keeps_nothing: Whether ``None`` waits like a batch, or is passed over by whoever is told of it.

        Returns:
            What was found in that place.
        """
        while len(self._waiting) <= beyond:
            batch = self._read()
            if batch is self and self.goes_round:
                self._reopen(waiting=self._waiting)
                batch = self._read()
            if batch is self:
                return "end"
            self._fetched += 1
            if batch is None and not keeps_nothing:
                return "nothing"
            self._waiting.append(batch)
        return "batch"

    def take(self) -> Any:
        """Return the next batch, or the ``None`` in its place.

        Raises:
            StopIteration: There is none left.
        """
        while not self._waiting:
            if self.fetch() == "end":
                raise StopIteration
        return self._waiting.popleft()

    def show(self) -> Any:
        """Read the next batch and return it; it waits until it is taken, and ``None`` does not.

        Raises:
            StopIteration: There is none left.
        """
        if self.fetch(len(self._waiting)) == "end":
            raise StopIteration
        shown = self._waiting[-1]
        while self._waiting and self._waiting[0] is None:
            self._waiting.popleft()
        return shown

    def take_all_but(self, ahead: int) -> None:
        """Take the batches that wait, except for some that were read last."""
        while len(self._waiting) > ahead:
            self._waiting.popleft()

    def close(self) -> None:
        """Let go of the iterator, with its processes and open files, and of batches that wait."""
        self._iterator = iter(())
        self._waiting.clear()

    def at_end(self) -> bool:
        """Tell whether there is no batch left before the loader ends; reads one ahead to find out."""
        return not self._waiting and self.fetch() == "end"

    def state_dict(self) -> dict[str, Any]:
        """Return what it takes to go on in the middle of an epoch."""
        return {
            "opened_with": self._opened_with,
            "started_with": self._started_with,
            "taken": self.taken,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on, when the loader is opened next, where ``state_dict`` was called."""
        if self._replays and state["opened_with"]:
            self._resume = state

    def _read(self) -> Any:
        """Return the loader's next batch, or this object where there is none."""
        if not self._started_with:
            # Samplers draw their seed when the first batch is read, long after the loader was opened.
            self._started_with = capture_global_streams()
        return next(self._iterator, self)

    def _reopen(self, waiting: Iterable[Any] = ()) -> None:
        self._waiting = deque(waiting)
        self._fetched = len(self._waiting)
        self._opened_with, self._started_with = capture_global_streams(), {}
        self._iterator = iter(self.loader)
