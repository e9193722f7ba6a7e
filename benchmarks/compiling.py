"""What compiled steps take, graphs apart: ``python -m benchmarks.simulation --compile``.

Each fit has a module of its own, and so compiles anew, which takes as long in a short fit as in a long one.
So fits of all rounds and of half of them are measured: what they differ by is the price of rounds, and what
is left is paid once. For graphs that is the time in this process: a C++ compiler runs in others.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from torch.utils.data import TensorDataset

from benchmarks.measuring import CPU, Spread
from benchmarks.table import Row, exactly
from benchmarks.vmapped import by_vmap
from benchmarks.workloads import (
    OPTIMIZERS,
    MakeOptimizer,
    Module,
    Orders,
    Workload,
    by_hand,
    by_strategy,
    final_loss,
)

AGREEMENT = 1e-4
LEAST_ROUNDS = 4
BY_HAND = "by hand"
OURS = {"together": False, "together compiled": True}

Train = Callable[[int, Module], None]


@dataclass(frozen=True)
class _Split:
    """Seconds of a fit, divided.

    Args:
        rounds: Those of its rounds.
        once: Those that a fit of any length takes.
    """

    rounds: float
    once: float


def compiled(work: Workload, optimizers: list[str], repetitions: int) -> Iterator[Row]:
    """Measure the rounds of a workload with compiled steps, and what is to be paid before.

    Args:
        work: What is trained, for `LEAST_ROUNDS` rounds or more.
        optimizers: Names out of `OPTIMIZERS`.
        repetitions: How often all ways are measured, in turn, after a first turn that warms up.

    Yields:
        For each optimizer, with and without graphs, what rounds take as a multiple of those of the loop by
        hand; seconds that are paid once; and by how much final losses differ. With plain SGD, also what a
        researcher writes by hand with `torch.func`.
    """
    dataset = work.dataset()
    works = work.shortened(work.rounds // 2), work
    orders = [Orders(one, dataset) for one in works]
    for name in optimizers:
        make = OPTIMIZERS[name]
        ways = dict(_ways(works, name, dataset, orders))
        turns = [
            {label: _split(works, make, dataset, train) for label, train in ways.items()}
            for _ in range(repetitions + 1)
        ]
        best = []
        for label in list(ways)[1:]:
            splits = [(turn[BY_HAND][0], turn[label][0]) for turn in turns[1:]]
            ratios = Spread.of([theirs.rounds / hand.rounds for hand, theirs in splits])
            if label in OURS:
                best.append(ratios)
            what = f"{work.name}, {name} {label}"
            yield Row(f"{what}: rounds beside the loop by hand's", ratios, "x")
            yield Row(f"{what}: once, seconds", Spread.of([theirs.once for _, theirs in splits]), "s")
            loss = abs(turns[0][BY_HAND][1] - turns[0][label][1])
            yield Row(f"{what}: final losses differ by", exactly(loss), "", AGREEMENT)
        target = work.target_together if name == "sgd" else None
        better = min(best, key=lambda ratios: ratios.middle)
        yield Row(f"{work.name}, {name} together, the better of both: rounds", better, "x", target)


def _ways(
    works: tuple[Workload, Workload], optimizer: str, dataset: TensorDataset, orders: list[Orders]
) -> Iterator[tuple[str, Train]]:
    """Yield all ways to train, the loop by hand first, with their labels."""

    def hand(number: int, module: Module) -> None:
        by_hand(works[number], module.net, OPTIMIZERS[optimizer], dataset, orders[number])

    def ours(number: int, module: Module, *, compiles: bool) -> None:
        by_strategy(works[number], module, dataset, "auto", compiles=compiles)

    def mapped(number: int, module: Module, *, compiles: bool) -> None:
        by_vmap(works[number], module.net, dataset, orders[number], compiles=compiles)

    yield BY_HAND, hand
    for label, compiles in OURS.items():
        yield label, partial(ours, compiles=compiles)
    if optimizer == "sgd":
        yield "by hand with vmap", partial(mapped, compiles=False)
        yield "by hand with vmap compiled", partial(mapped, compiles=True)


def _split(
    works: tuple[Workload, Workload],
    make: MakeOptimizer,
    dataset: TensorDataset,
    train: Train,
) -> tuple[_Split, float]:
    seconds = []
    for number, work in enumerate(works):
        module = Module(work.net(), make)
        gc.collect()
        started = CPU()
        train(number, module)
        seconds.append(CPU() - started)
    half, whole = seconds
    each = (whole - half) / (works[1].rounds - works[0].rounds)
    return _Split(each * works[1].rounds, whole - each * works[1].rounds), final_loss(module.net, dataset)
