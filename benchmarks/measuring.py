"""How benchmarks measure: two ways of doing the same, in turn, in one run. What they measure is elsewhere."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from statistics import median

import psutil

Work = Callable[[], object]
Clock = Callable[[], float]

# The seconds that this process has computed: what others do on the machine counts for little. Where the work
# is done in another process, or has to be waited for, only the time on the wall says what a user pays.
CPU: Clock = time.process_time
WALL: Clock = time.perf_counter


def family_seconds(pid: int | None = None) -> float:
    """Return the seconds that a process has computed, with all that descend from it and are still there.

    For work that is done in other processes on a busy machine, where the wall says more of the others on it.

    Args:
        pid: The process; None for this one.
    """
    eldest = psutil.Process(pid)
    seconds = 0.0
    for process in (eldest, *eldest.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has just ended; its parent has inherited its seconds
            seconds += sum(process.cpu_times()[:4])
    return seconds


@dataclass(frozen=True)
class Spread:
    """Hold the middle and the extremes of repeated measurements.

    Args:
        low: The least.
        middle: The median.
        high: The greatest.
    """

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Summarize measurements."""
        return cls(min(values), median(values), max(values))

    def scaled(self, factor: float) -> Spread:
        """Return the same in another unit."""
        return Spread(self.low * factor, self.middle * factor, self.high * factor)


@dataclass(frozen=True)
class Effort:
    """Say how long to measure.

    Args:
        repetitions: Pairs of measurements.
        seconds: Time that one measurement takes at the least.
        steps: Steps for which memory is watched.
        size: Bytes of the state dict that is moved.
    """

    repetitions: int
    seconds: float
    steps: int
    size: int


FULL = Effort(repetitions=25, seconds=0.05, steps=10_000, size=46_000_000)
QUICK = Effort(repetitions=5, seconds=0.0, steps=50, size=400_000)


def ratio(ours: Work, baseline: Work, effort: Effort, clock: Clock = CPU) -> Spread:
    """Measure how many times as long as a baseline something takes.

    Each repetition measures both, one right after the other and in alternating order, so that a change of the
    machine's speed meets both alike; a ratio is taken per repetition.

    Args:
        ours: What is judged.
        baseline: What it is held against.
        effort: How long to measure.
        clock: What counts as time.
    """
    ratios = []
    with _no_collections():
        count = max(_enough(ours, effort, clock), _enough(baseline, effort, clock))
        for repetition in range(effort.repetitions):
            order = (ours, baseline) if repetition % 2 else (baseline, ours)
            took = {work: _seconds(work, count, clock) for work in order}
            ratios.append(took[ours] / took[baseline])
    return Spread.of(ratios)


def seconds_each(work: Work, effort: Effort, clock: Clock = WALL) -> Spread:
    """Measure how long something takes, in seconds.

    Args:
        work: What is measured.
        effort: How long to measure.
        clock: What counts as time.
    """
    with _no_collections():
        count = _enough(work, effort, clock)
        return Spread.of([_seconds(work, count, clock) / count for _ in range(effort.repetitions)])


@contextmanager
def _no_collections() -> Iterator[None]:
    # A collection would fall on one of the two by chance.
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _enough(work: Work, effort: Effort, clock: Clock) -> int:
    """Find how often to repeat within one measurement; warms up on the way."""
    count = 1
    while _seconds(work, count, clock) < effort.seconds:
        count *= 2
    return count


def _seconds(work: Work, count: int, clock: Clock) -> float:
    started = clock()
    for _ in range(count):
        work()
    return max(clock() - started, 1e-9)
