"""Ratios, spreads and verdicts are right, on a clock that the test turns itself."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Literal

import pytest

from benchmarks.measuring import CPU, Effort, Spread, family_seconds, ratio, seconds_each
from benchmarks.table import Row, exactly, render

EFFORT = Effort(repetitions=4, seconds=10.0, steps=1, size=1)


class Clock:
    """Stands still until work is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> Callable[[], None]:
        def pass_time() -> None:
            self.now += seconds

        return pass_time


def test_a_ratio_is_of_times_per_call() -> None:
    clock = Clock()
    assert ratio(clock.work(3.0), clock.work(2.0), EFFORT, clock) == Spread(1.5, 1.5, 1.5)


def test_a_slower_machine_does_not_change_a_ratio() -> None:
    clock = Clock()

    def work(seconds: float) -> Callable[[], None]:
        def pass_time() -> None:
            clock.now += seconds * (1 + clock.now / 1000)

        return pass_time

    spread = ratio(work(3.0), work(1.0), EFFORT, clock)
    assert clock.now > 100  # so much slower, in percent, it was at the end
    assert spread.middle == pytest.approx(3.0, rel=0.05)


def test_seconds_are_of_one_call() -> None:
    clock = Clock()
    assert seconds_each(clock.work(0.25), EFFORT, clock) == Spread(0.25, 0.25, 0.25)


def test_the_middle_is_the_median() -> None:
    assert Spread.of([9.0, 1.0, 2.0]) == Spread(1.0, 2.0, 9.0)


def test_collections_go_on_after_an_error() -> None:
    def fail() -> None:
        assert not gc.isenabled()
        raise KeyError

    with pytest.raises(KeyError):
        seconds_each(fail, EFFORT)
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("value", "bound", "verdict"),
    [(1.02, "<=", "met"), (1.03, "<=", "missed"), (1.02, ">=", "met"), (1.01, ">=", "missed")],
)
def test_a_verdict_compares_the_middle(value: float, bound: Literal["<=", ">="], verdict: str) -> None:
    assert Row("x", Spread(0.0, value, 9.0), "x", 1.02, bound).verdict == verdict


def test_a_table_has_a_line_per_row() -> None:
    rows = [Row("sums", exactly(1234), "messages", 1000), Row("time", Spread(1.0, 1.5, 2.0), "x")]
    assert render(rows).splitlines() == [
        "what  measured        from .. to      target    verdict",
        "sums  1,234 messages  1,234 .. 1,234  <= 1,000  missed",
        "time  1.5 x           1 .. 2",
    ]


COMPUTES = """
import subprocess, sys, time
while time.process_time() < 0.3: pass
if sys.argv[1] == "parent":
    child = subprocess.Popen([sys.executable, "-c", sys.argv[2], "child"], stdin=sys.stdin)
    child.wait()
print("done", flush=True)
sys.stdin.read()
"""


def test_a_familys_seconds_are_those_of_all_generations() -> None:
    ours = CPU()
    before = family_seconds()
    with subprocess.Popen(
        [sys.executable, "-c", COMPUTES, "parent", COMPUTES], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()  # of the child, which is still there
        # Two processes of 0.3 seconds each, and less what clocks of hundredths of a second leave out.
        assert family_seconds(parent.pid) >= 0.55
        assert family_seconds() - before >= 0.55 + CPU() - ours - 0.05
        assert parent.stdin is not None
        parent.stdin.close()
