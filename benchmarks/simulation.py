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

import torch
from torch.utils.data import TensorDataset

from benchmarks.measuring import CPU, Spread
from benchmarks.table import Row, exactly, render
from benchmarks.workloads import (
    OPTIMIZERS,
    WORKLOADS,
    MakeOptimizer,
    Module,
    Orders,
    Workload,
    by_hand,
    by_strategy,
    final_loss,
)

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
        print(render(measured(work, arguments.optimizers, repetitions)), flush=True)


def measured(work: Workload, optimizers: list[str], repetitions: int) -> Iterator[Row]:
    """Measure one workload.

    Args:
        work: What is trained.
        optimizers: Names out of `OPTIMIZERS`.
        repetitions: How often both ways are measured, in turn.

    Yields:
        For each optimizer what ours takes, as a multiple of the loop by hand, and by how much they differ.
    """
    dataset = work.dataset()
    orders = Orders(work, dataset)
    for name in optimizers:
        pairs = [_one_pair(work, OPTIMIZERS[name], dataset, orders) for _ in range(repetitions + 1)]
        # The first pair warms up.
        ratios = [ours / by_hand for ours, by_hand, _ in pairs[1:]]
        target = work.target_sgd if name == "sgd" else work.target_other
        yield Row(f"{work.name}, {name}: beside the loop by hand", Spread.of(ratios), "x", target)
        yield Row(f"{work.name}, {name}: final losses differ by", exactly(pairs[0][2]), "", AGREEMENT)


def _one_pair(
    work: Workload, make: MakeOptimizer, dataset: TensorDataset, orders: Orders
) -> tuple[float, float, float]:
    """Return the seconds that ours takes, those of the loop by hand, and the final losses' difference."""
    net, module = work.net(), Module(work.net(), make)
    by_hand_took = _seconds(lambda: by_hand(work, net, make, dataset, orders))
    ours_took = _seconds(lambda: by_strategy(work, module, dataset))
    return ours_took, by_hand_took, abs(final_loss(net, dataset) - final_loss(module.net, dataset))


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
    parser.add_argument("--quick", action="store_true", help="two rounds, once: does it run?")
    return parser.parse_args()


if __name__ == "__main__":
    main()
