"""Where the time goes is told by the history, after a restart too, and by Lightning's profiler."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from lightning.pytorch.profilers import SimpleProfiler

from fedlightning import FederatedStrategy
from fedlightning.strategy.history import History
from fedlightning.strategy.phases import PHASES, PhaseClock
from tests.strategy.toys import fit, loader


@pytest.fixture(autouse=True)
def _ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a second pass between any two looks at the clock."""
    ticks = count()
    monkeypatch.setattr("fedlightning.strategy.phases.perf_counter", lambda: float(next(ticks)))


def test_each_phase_gets_the_time_until_the_next() -> None:
    clock = PhaseClock()
    for phase in ("send", "work", "work", None, "log", None):
        clock.turn_to(phase)
    assert clock.take() == {"send": 1, "work": 2, "aggregate": 0, "evaluate": 0, "log": 1}
    assert not any(clock.take().values())


@pytest.mark.parametrize(
    "settings", [{"local_epochs": 1}, {"vectorize": True}, {"local_steps": 1}, {"update": "sequential"}]
)
def test_history_and_profiler_know_every_phase_of_every_round(settings: Any) -> None:
    profiler = SimpleProfiler()
    _, run = fit(FederatedStrategy(3, rounds_per_epoch=2, seed=0, **settings), profiler=profiler)
    assert isinstance(run.strategy, FederatedStrategy)
    history = run.strategy.history
    rows = history.rows("times")
    assert [row["round"] for row in rows] == [0, 1, 2, 3]
    assert all(row[phase] > 0 for row in rows for phase in PHASES if phase != "evaluate")
    assert [row["evaluate"] > 0 for row in rows] == [False, True, False, True]
    assert {f"[FederatedStrategy]{phase}" for phase in PHASES} <= set(profiler.recorded_durations)
    assert not any(name.startswith("[FederatedStrategy]") for name in profiler.current_actions)
    assert history.seconds == {phase: sum(row[phase] for row in rows) for phase in PHASES}


@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2}])
def test_steps_of_the_trainers_own_are_timed_as_well(settings: Any) -> None:
    profiler = SimpleProfiler()
    strategy = FederatedStrategy(1, local_steps=1, seed=0)
    fit(strategy, train=loader(8), profiler=profiler, **settings)
    rows = strategy.history.rows("times")
    assert [row["round"] for row in rows] == [0, 1, 2, 3]
    assert all(row[phase] > 0 for row in rows for phase in ("send", "work", "log"))
    assert [row["aggregate"] > 0 for row in rows] == [not settings, True] * 2  # where an optimizer steps
    assert not any(name.startswith("[FederatedStrategy]") for name in profiler.current_actions)


def test_times_are_saved_and_added_to() -> None:
    history = History()
    once = dict.fromkeys(PHASES, 1.0)
    history.add_times(0, once)
    history.add_times(1, once)
    again = History.from_state(history.state_dict())
    again.add_times(1, once)
    assert [row["work"] for row in again.rows("times")] == [1.0, 2.0]
