"""How long the steps that are taken together take, while they are taken, and when that is too long.

Whether company saves time shows best in real work: nothing is done for the measurement alone. Where it does
not, the round has to be made again one by one; so a few steps have to be enough.
"""

from __future__ import annotations

from time import process_time

from fedlightning.local.vectorised.refusal import NotBatchable

WARM_STEPS = 2
"""Steps until all is warm, and recorded."""

CLOCKED_STEPS = 4
"""Steps that are clocked, of which the shortest counts: whatever else a machine is busy with only adds."""

TOO_SLOW = "its steps take no less time together"
"""What is said of steps that are not faster."""


class Pace:
    """Clock the first steps, and refuse to go on where they are slow.

    Args:
        limit: The most seconds that a step may take of each worker; ``None`` to clock nothing.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._least = float("inf")
        self._left = 0 if limit is None else WARM_STEPS + CLOCKED_STEPS
        self._since = 0.0

    def start(self) -> None:
        """Begin with the first step of several."""
        if self._left:
            self._since = process_time()

    def stepped(self, workers: int) -> None:
        """Take note of a step.

        Args:
            workers: How many have taken it.

        Raises:
            NotBatchable: All steps that were clocked took longer than they may.
        """
        if not self._left:
            return
        self._left -= 1
        now = process_time()
        if self._left < CLOCKED_STEPS:
            self._least = min(self._least, (now - self._since) / workers)
        self._since = now
        if not self._left and self._limit is not None and self._least > self._limit:
            raise NotBatchable(TOO_SLOW)
