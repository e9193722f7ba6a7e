"""When a Ctrl-C may come: not while the global module takes a round over, which is done whole or not."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """Hold a Ctrl-C back for a while; a second one comes through at once.

    Signals reach the main thread alone: in any other, there is nothing to hold back.
    """

    def __init__(self) -> None:
        self._handler: Any = None
        self._waiting = False

    def hold(self) -> None:
        """Let the next Ctrl-C wait until `release`; again has no effect."""
        here = threading.current_thread() is threading.main_thread()
        if here and self._handler is None and callable(signal.getsignal(signal.SIGINT)):
            self._handler = signal.signal(signal.SIGINT, self._note)

    def release(self) -> None:
        """Let a Ctrl-C through again, first of all the one that waits.

        Raises:
            KeyboardInterrupt: One has waited (unless the program has a handler of its own, which is called).
        """
        handler, self._handler = self._handler, None
        waiting, self._waiting = self._waiting, False
        if handler is None:
            return
        signal.signal(signal.SIGINT, handler)
        if waiting:
            handler(signal.SIGINT, None)

    def drop(self) -> None:
        """Let a Ctrl-C through again; one that waits is forgotten, since the program stops in any case."""
        self._waiting = False
        self.release()

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self._waiting = self._waiting, True
        if again:
            self.release()
