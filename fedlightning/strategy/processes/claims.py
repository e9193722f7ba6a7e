"""Pieces of work that processes take for themselves: whoever is free takes the next, and waits for nobody.

What a piece is, and where its mean goes, they have been told before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from torch import Tensor

from fedlightning.strategy.processes.messages import Mean
from fedlightning.strategy.processes.shared_memory import File

_ALL = 1 << 62


class Claims:
    """Count through pieces in several processes, so that each piece goes to one of them.

    Args:
        file: The shared memory's open file, which is locked for a moment at each claim.
        memory: Some of that memory, uint8, of `nbytes_for`, filled with zeros at first.
        processes: How many there are.

    Example:
        >>> from fedlightning.strategy.processes.shared_memory import SharedMemory
        >>> memory = SharedMemory(Claims.nbytes_for(processes=2, pieces=3))
        >>> claims = Claims(memory.file, memory.bytes, processes=2)
        >>> claims.offer()
        >>> for piece in claims.taken_by(process=1, pieces=3):
        ...     if piece != 1:
        ...         claims.finish(piece, count=1, weight=10.0 + piece)
        >>> claims.last_of(1), claims.last_of(0)
        (2, 0)
        >>> claims.finished_from(0), claims.finished_from(2)
        ([Mean(count=1, weight=10.0, extras={})], [Mean(count=1, weight=12.0, extras={})])
    """

    def __init__(self, file: File, memory: Tensor, processes: int) -> None:
        self._file = file
        pieces = (memory.nbytes // 8 - 1 - processes) // 2
        # The first piece that nobody has; the last one of each process; and of each piece that is finished
        # how many visits are in its mean, plus one, and their weight.
        # NumPy reads and writes a single number in a tenth of the time.
        numbers = np.split(memory.numpy().view(np.int64), np.cumsum([1, processes, pieces]))
        self._next, self._last, self._counts = numbers[:3]
        self._weights = numbers[3].view(np.float64)

    @staticmethod
    def nbytes_for(processes: int, pieces: int) -> int:
        """Return how many bytes it takes.

        Args:
            processes: How many there are.
            pieces: How many pieces there are at the most.
        """
        return 8 * (1 + processes + 2 * pieces)

    def offer(self) -> None:
        """Let processes take pieces from the first on; nobody is at work."""
        for numbers in (self._last, self._counts, self._next):
            numbers.fill(0)

    def withdraw(self) -> None:
        """Let nobody take another piece."""
        with self._locked():
            self._next[0] = _ALL

    def taken_by(self, process: int, pieces: int) -> Iterator[int]:
        """Take pieces as long as there are any, one whenever it is asked for.

        Args:
            process: Number of this process.
            pieces: How many there are.

        Yields:
            Their numbers.
        """
        while (piece := self._take(process, pieces)) < pieces:
            yield piece

    def _take(self, process: int, pieces: int) -> int:
        with self._locked():
            piece = int(self._next[0])
            if piece < pieces:
                self._next[0] = piece + 1
                self._last[process] = piece
        return piece

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A process that ends in here leaves no lock behind.
        descriptor = self._file.fileno()
        os.lockf(descriptor, os.F_LOCK, 0)
        try:
            yield
        finally:
            os.lockf(descriptor, os.F_ULOCK, 0)

    def finish(self, piece: int, count: int, weight: float) -> None:
        """Tell that a piece is over, and its mean in its place.

        Args:
            piece: Its number.
            count: How many visits are in the mean.
            weight: Their weight.
        """
        with self._locked():
            self._weights[piece] = weight
            self._counts[piece] = count + 1

    def finished_from(self, first: int) -> list[Mean]:
        """Return what has been told of a piece and those after it, up to the first that is not over.

        Args:
            first: Number of the first piece.
        """
        with self._locked():
            counts, weights = self._counts[first:].tolist(), self._weights[first:].tolist()
        finished = counts.index(0) if 0 in counts else len(counts)
        return [Mean(count - 1, weight) for count, weight in zip(counts[:finished], weights, strict=False)]

    def last_of(self, process: int) -> int:
        """Return the number of the piece that a process has taken last; 0 if it has not taken any.

        Args:
            process: Its number.
        """
        return int(self._last[process])
