"""Measure what a simulated federation costs beside a loop by hand: ``python -m benchmarks.simulation``.

Both train the same network on the same samples in the same order, in turn, in one process with one thread.
What counts is the processor's time for all of `Trainer.fit`, start-up and one validation included. What is
trained lives in `workloads`.
"""

from __future__ import annotations

import argparse
import gc
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch.utils.data import TensorDataset

from benchmarks.measuring import CPU, Spread
from benchmarks.table import Row, exactly, render
from benchmarks.workloads import (
    OPTIMIZERS,
    WORKLOADS,
    MakeOptimizer,
    Metered,
    Module,
    Orders,
    Workload,
    by_hand,
    by_strategy,
    final_loss,
)
from fedlightning.local.vectorised.trial import Wish

QUICK_ROUNDS = 2
AGREEMENT = 1e-4


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    repetitions = 1 if arguments.quick else arguments.repetitions
    for name in arguments.workloads:
        work = WORKLOADS[name].shortened(QUICK_ROUNDS) if arguments.quick else WORKLOADS[name]
        print(
            render(
                measured(
                    work,
                    arguments.optimizers,
                    repetitions,
                    vectorize=arguments.vectorize,
                    metered=arguments.metered,
                )
            ),
            flush=True,
        )


def measured(
    work: Workload,
    optimizers: list[str],
    repetitions: int,
    *,
    vectorize: bool = False,
    metered: bool = False,
) -> Iterator[Row]:
    """Measure one workload.

    Args:
        work: What is trained.
        optimizers: Names out of `OPTIMIZERS`.
        repetitions: How often all ways are measured, in turn.
        vectorize: Whether the workers' steps are also taken together, where a trial finds that faster.
        metered: Whether a torchmetric counts in each training step, of both.

    Yields:
        For each optimizer what ours takes, as a multiple of the loop by hand, and by how much they differ.
    """
    dataset = work.dataset()
    orders = Orders(work, dataset)
    wishes: list[Wish] = [False, "auto"] if vectorize else [False]
    for name in optimizers:
        # The first turn warms up.
        turns = [
            _one_turn(work, OPTIMIZERS[name], dataset, orders, wishes, metered=metered)
            for _ in range(repetitions + 1)
        ]
        for number, wish in enumerate(wishes):
            way = f"{work.name}, {name}" + (" together" if wish else "") + (" metered" if metered else "")
            target = None if metered else _target(work, name, wish)
            ratios = [turn[number][0] for turn in turns[1:]]
            yield Row(f"{way}: beside the loop by hand", Spread.of(ratios), "x", target)
            yield Row(f"{way}: final losses differ by", exactly(turns[0][number][1]), "", AGREEMENT)


def _one_turn(
    work: Workload,
    make: MakeOptimizer,
    dataset: TensorDataset,
    orders: Orders,
    wishes: list[Wish],
    *,
    metered: bool,
) -> list[tuple[float, float]]:
    """Return, for each wish, how much longer ours takes than the loop by hand, and how the losses differ."""
    net = work.net()
    by_hand_took = _seconds(partial(by_hand, work, net, make, dataset, orders, metered=metered))
    expected = final_loss(net, dataset)
    turn = []
    for wish in wishes:
        module = (Metered if metered else Module)(work.net(), make)
        took = _seconds(partial(by_strategy, work, module, dataset, wish))
        turn.append((took / by_hand_took, abs(expected - final_loss(module.net, dataset))))
    return turn


def _target(work: Workload, optimizer: str, wish: Wish) -> float | None:
    if optimizer != "sgd":
        return None if wish else work.target_other
    return work.target_together if wish else work.target_sgd


def _seconds(train: Callable[[], None]) -> float:
    gc.collect()
    started = CPU()
    train()
    return CPU() - started


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS), help="out of W1, W2, W3, W4")
    parser.add_argument("--optimizers", nargs="+", default=["sgd"], choices=OPTIMIZERS)
    parser.add_argument("--repetitions", type=int, default=5, help="pairs of measurements")
    parser.add_argument("--vectorize", action="store_true", help="also let workers take steps together")
    parser.add_argument("--metered", action="store_true", help="a torchmetric counts in each training step")
    parser.add_argument("--quick", action="store_true", help="two rounds, once: does it run?")
    return parser.parse_args()


if __name__ == "__main__":
    main()
