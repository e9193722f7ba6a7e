"""Pieces of work that processes take for themselves: whoever is free takes the next, and waits for nobody.

What a piece is, and where its mean goes, they have been told before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fedlightning.strategy.processes.shared_memory import File

_ALL = 1 << 62


class Claims:
    """Count through pieces in several processes, so that each piece goes to one of them.

    Args:
        file: The shared memory's open file, which is locked for a moment at each claim.
        memory: Some of that memory, uint8, of `nbytes_for`, filled with zeros at first.

    Example:
        >>> from fedlightning.strategy.processes.shared_memory import SharedMemory
        >>> memory = SharedMemory(Claims.nbytes_for(2))
        >>> claims = Claims(memory.file, memory.bytes)
        >>> claims.offer()
        >>> list(claims.taken_by(1, 3))
        [0, 1, 2]
        >>> claims.last_of(1), claims.last_of(0)
        (2, 0)
    """

    def __init__(self, file: File, memory: Tensor) -> None:
        self._file = file
        # The first piece that nobody has, and after it the last one of each process.
        self._numbers = memory.view(torch.int64)

    @staticmethod
    def nbytes_for(processes: int) -> int:
        """Return how many bytes it takes.

        Args:
            processes: How many there are.
        """
        return 8 * (1 + processes)

    def offer(self) -> None:
        """Let processes take pieces from the first on; nobody is at work."""
        self._numbers.zero_()

    def withdraw(self) -> None:
        """Let nobody take another piece."""
        with self._locked():
            self._numbers[0] = _ALL

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
            piece = int(self._numbers[0])
            if piece < pieces:
                self._numbers[0] = piece + 1
                self._numbers[1 + process] = piece
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

    def last_of(self, process: int) -> int:
        """Return the number of the piece that a process has taken last; 0 if it has not taken any.

        Args:
            process: Its number.
        """
        return int(self._numbers[1 + process])
