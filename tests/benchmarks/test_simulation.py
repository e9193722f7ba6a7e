"""The simulation benchmark compares like with like: the loop by hand ends where the strategy does."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from benchmarks import compiling, simulation, vmapped
from benchmarks.workloads import (
    OPTIMIZERS,
    Module,
    Orders,
    Workload,
    by_hand,
    by_strategy,
    logistic_regression,
)

TINY = Workload("tiny", logistic_regression, (60,), 6, 5, 3, 3, 2, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("wish", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_loop_by_hand_trains_on_the_same_samples_in_the_same_order(optimizer: str, wish: bool) -> None:
    dataset, make = TINY.dataset(), OPTIMIZERS[optimizer]
    net, module = TINY.net(), Module(TINY.net(), make)
    by_hand(TINY, net, make, dataset, Orders(TINY, dataset))
    by_strategy(TINY, module, dataset, wish)
    for expected, ours, start in zip(
        net.parameters(), module.net.parameters(), TINY.net().parameters(), strict=True
    ):
        # One after the other, workers take the very steps of the loop; together, they round otherwise.
        exact = {} if wish else {"rtol": 0.0, "atol": 0.0}
        torch.testing.assert_close(ours, expected, **{"rtol": 1e-5, "atol": 1e-6, **exact})
        assert not torch.allclose(ours, start, atol=1e-4)


@pytest.mark.parametrize(("numbers", "compiles"), [(610, False), (10_000_000, False), (10_000_000, True)])
def test_steps_by_hand_with_vmap_are_those_of_the_loop(
    numbers: int, compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vmapped, "NUMBERS_PER_CHUNK", numbers)
    # The graph is run as it is: to compile it takes seconds, and another compiler.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    dataset = TINY.dataset()
    loop, mapped, orders = TINY.net(), TINY.net(), Orders(TINY, dataset)
    by_hand(TINY, loop, OPTIMIZERS["sgd"], dataset, orders)
    vmapped.by_vmap(TINY, mapped, dataset, orders, compiles=compiles)
    for expected, ours, start in zip(
        loop.parameters(), mapped.parameters(), TINY.net().parameters(), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(ours, start, atol=1e-4)


def test_every_row_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(simulation, "WORKLOADS", {"W1": TINY})
    monkeypatch.setattr(
        sys, "argv", ["simulation", "W1", "--quick", "--vectorize", "--optimizers", "sgd", "adam"]
    )
    simulation.main()
    table = capsys.readouterr().out
    for way in ("sgd", "adam", "sgd together", "adam together", "sgd by hand with vmap"):
        assert f"tiny, {way}: beside the loop by hand" in table
        (agreement,) = (line for line in table.splitlines() if f"tiny, {way}: final losses" in line)
        assert agreement.endswith("met")


def test_what_is_paid_once_is_told_apart_from_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def by_hand(work: Workload, *_: Any) -> None:
        clock[0] += 2 * work.rounds

    def by_strategy(work: Workload, *_: Any, compiles: bool) -> None:
        clock[0] += work.rounds + 0.5 if not compiles else 0.5 * work.rounds + 6

    def by_vmap(work: Workload, *_: Any, compiles: bool) -> None:
        clock[0] += work.rounds if not compiles else 0.25 * work.rounds + 4

    monkeypatch.setattr(compiling, "CPU", lambda: clock[0])
    monkeypatch.setattr(compiling, "by_vmap", by_vmap)
    monkeypatch.setattr(compiling, "by_hand", by_hand)
    monkeypatch.setattr(compiling, "by_strategy", by_strategy)
    found = {row.what: row.spread.middle for row in compiling.compiled(replace(TINY, rounds=8), ["sgd"], 2)}
    assert found["tiny, sgd together: rounds beside the loop by hand's"] == 0.5
    assert found["tiny, sgd together: once, seconds"] == 0.5
    assert found["tiny, sgd together compiled: rounds beside the loop by hand's"] == 0.25
    assert found["tiny, sgd together compiled: once, seconds"] == 6
    assert found["tiny, sgd by hand with vmap: rounds beside the loop by hand's"] == 0.5
    assert found["tiny, sgd by hand with vmap compiled: rounds beside the loop by hand's"] == 0.125
    assert found["tiny, sgd by hand with vmap compiled: once, seconds"] == 4
    assert found["tiny, sgd together, the better of both: rounds"] == 0.25


@pytest.mark.xdist_group("strategy processes")
def test_processes_are_held_against_one() -> None:
    rows = list(simulation.in_processes(TINY, ["sgd"], 1, 2))
    assert [row.spread.middle for row in rows if "losses differ" in row.what] == [0.0]
    assert all(row.spread.low > 0 for row in rows[:2])


def test_a_gpu_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["simulation", "W1", "--quick", "--device", "cuda"])
    simulation.main()
    assert capsys.readouterr().out.startswith("skipped: ")
