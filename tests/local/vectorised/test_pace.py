"""The clock of steps that are taken together: a few of them decide, and never again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fedlightning.local.vectorised import pace
from fedlightning.local.vectorised.pace import CLOCKED_STEPS, WARM_STEPS, Pace
from fedlightning.local.vectorised.refusal import NotBatchable

SLOW = [9.0] * WARM_STEPS + [3.0] * CLOCKED_STEPS


def steps_taken(
    seconds: Sequence[float], monkeypatch: pytest.MonkeyPatch, limit: float | None, chunk: int = 3
) -> int:
    """Take steps of two workers in visits of so many steps; return after how many it was refused to go on."""
    now = [0.0]
    monkeypatch.setattr(pace, "process_time", lambda: now[0])
    clock = Pace(limit)
    for number, lasting in enumerate(seconds):
        if number % chunk == 0:
            now[0] += 100.0  # what goes on between chunks is no part of a step
            clock.start()
        now[0] += lasting
        try:
            clock.stepped(2)
        except NotBatchable:
            return number + 1
    return 0


def test_slow_steps_are_given_up_as_soon_as_all_that_are_clocked_are_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert steps_taken([*SLOW, 3.0], monkeypatch, 1.4) == len(SLOW)
    assert steps_taken([*SLOW, 3.0], monkeypatch, 1.5) == 0


@pytest.mark.parametrize("which", range(CLOCKED_STEPS))
def test_one_quick_step_is_enough_and_nothing_is_clocked_later(
    which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [*SLOW]
    seconds[WARM_STEPS + which] = 1.0
    assert steps_taken([*seconds, *SLOW, *SLOW], monkeypatch, 0.5) == 0


def test_the_first_steps_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps_taken([0.0] * WARM_STEPS + SLOW[WARM_STEPS:], monkeypatch, 1.4) == len(SLOW)
    assert steps_taken(SLOW[:-1], monkeypatch, 1.4) == 0


def test_without_a_limit_nothing_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps_taken(SLOW, monkeypatch, None) == 0
