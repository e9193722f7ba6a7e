"""Where the time of a run goes: seconds by phase, for the history and for Lightning's profiler."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Literal, get_args

from lightning.pytorch.profilers import PassThroughProfiler, Profiler

Phase = Literal["send", "work", "aggregate", "evaluate", "log"]
"""What a run spends its time on:

- ``"send"``: to find a worker, place its data at the first visit, and move the module there and back;
- ``"work"``: local work, until its report is there; to a worker in another process, waiting for it included;
- ``"aggregate"``: to combine updates, restore the round's start, and step the global module;
- ``"evaluate"``: validation;
- ``"log"``: records, listeners, and what is logged for the round.
"""

PHASES: tuple[Phase, ...] = get_args(Phase)


class PhaseClock:
    """Add up the seconds of each phase.

    Args:
        profiler: Lightning's, which is told the same as ``[FederatedStrategy]<phase>``.

    Example:
        >>> clock = PhaseClock()
        >>> clock.turn_to("work")
        >>> clock.turn_to(None)
        >>> {phase for phase, seconds in clock.take().items() if seconds}
        {'work'}
    """

    def __init__(self, profiler: Profiler | None = None) -> None:
        # One that does nothing need not be told several times per visit.
        self._profiler = None if isinstance(profiler, PassThroughProfiler) else profiler
        self._phase: Phase | None = None
        self._since = 0.0
        self._seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)

    def turn_to(self, phase: Phase | None) -> None:
        """End the phase that was, and begin another; ``None`` for what is none of ours."""
        now, before = perf_counter(), self._phase
        if before is not None:
            self._seconds[before] += now - self._since
        self._phase, self._since = phase, now
        if self._profiler is not None and phase != before:
            if before is not None:
                self._profiler.stop(f"[FederatedStrategy]{before}")
            if phase is not None:
                self._profiler.start(f"[FederatedStrategy]{phase}")

    def take(self) -> Mapping[Phase, float]:
        """Return the seconds since this was asked last."""
        taken, self._seconds = self._seconds, dict.fromkeys(PHASES, 0.0)
        return taken


def in_words(seconds: Mapping[Phase, float]) -> str:
    """Say where the time went, the most first.

    Example:
        >>> in_words({"send": 1.0, "work": 7.0, "aggregate": 0.0, "evaluate": 2.0, "log": 0.0})
        '10.0 s in rounds and validation: work 70%, evaluate 20%, send 10%, aggregate 0%, log 0%'
    """
    total = sum(seconds.values())
    shares = sorted(seconds.items(), key=lambda item: -item[1])
    named = ", ".join(f"{phase} {100 * part / max(total, 1e-9):.0f}%" for phase, part in shares)
    return f"{total:.1f} s in rounds and validation: {named}"
