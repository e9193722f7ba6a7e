"""Measure what a simulated federation costs beside a loop by hand: ``python -m benchmarks.simulation``.

Both train the same network on the same samples in the same order, in turn, in one process with one thread.
What counts is the processor's time for all of `Trainer.fit`, start-up and one validation included; on a GPU,
and for several processes beside one, the time on the wall. What is trained lives in `workloads`.
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

from benchmarks.compiling import LEAST_ROUNDS, compiled
from benchmarks.measuring import CPU, WALL, Spread
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
TARGET_OF_TWO = 1.8


def main() -> None:
    arguments = _arguments()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("skipped: --device cuda needs a CUDA device, and there is none here")
        return
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    repetitions = 1 if arguments.quick else arguments.repetitions
    for name in arguments.workloads:
        work = WORKLOADS[name].shortened(QUICK_ROUNDS) if arguments.quick else WORKLOADS[name]
        if arguments.processes is not None:
            print(
                render(in_processes(work, arguments.optimizers, repetitions, arguments.processes)), flush=True
            )
            continue
        if arguments.compile:
            work = WORKLOADS[name].shortened(LEAST_ROUNDS) if arguments.quick else WORKLOADS[name]
            print(render(compiled(work, arguments.optimizers, repetitions)), flush=True)
            continue
        print(
            render(
                measured(
                    work,
                    arguments.optimizers,
                    repetitions,
                    vectorize=arguments.vectorize,
                    metered=arguments.metered,
                    device=arguments.device,
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
    device: str = "cpu",
) -> Iterator[Row]:
    """Measure one workload.

    Args:
        work: What is trained.
        optimizers: Names out of `OPTIMIZERS`.
        repetitions: How often all ways are measured, in turn.
        vectorize: Whether the workers' steps are also taken together, where a trial finds that faster.
        metered: Whether a torchmetric counts in each training step, of both.
        device: Where network and samples are.

    Yields:
        For each optimizer what ours takes, as a multiple of the loop by hand, and by how much they differ.
    """
    dataset = work.dataset(device)
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
    device = dataset.tensors[0].device
    seconds = _seconds if device.type == "cpu" else _seconds_on_gpu
    net = work.net().to(device)
    by_hand_took = seconds(partial(by_hand, work, net, make, dataset, orders, metered=metered))
    expected = final_loss(net, dataset)
    turn = []
    for wish in wishes:
        module = (Metered if metered else Module)(work.net(), make)
        took = seconds(partial(by_strategy, work, module, dataset, wish))
        module.to(device)
        turn.append((took / by_hand_took, abs(expected - final_loss(module.net, dataset))))
    return turn


def in_processes(work: Workload, optimizers: list[str], repetitions: int, count: int) -> Iterator[Row]:
    """Measure one workload in several processes, beside one.

    Args:
        work: What is trained.
        optimizers: Names out of `OPTIMIZERS`.
        repetitions: How often both are measured, in turn, after a first turn in which processes start.
        count: How many processes.

    Yields:
        For each optimizer how many times as many rounds they do in the same time, how much of the processor's
        time is still needed in this process, and by how much the losses differ.
    """
    dataset = work.dataset()
    for name in optimizers:
        gains, shares, differ = [], [], 0.0
        for turn in range(repetitions + 1):
            modules = [Module(work.net(), OPTIMIZERS[name]) for _ in range(2)]
            one, several = (
                _seconds_by_both(partial(by_strategy, work, module, dataset, processes=processes))
                for module, processes in zip(modules, (None, count), strict=True)
            )
            losses = [final_loss(module.net, dataset) for module in modules]
            differ = max(differ, abs(losses[0] - losses[1]))
            if turn:
                gains.append(one[0] / several[0])
                shares.append(several[1] / one[1])
        way = f"{work.name}, {name}, {count} processes"
        target = TARGET_OF_TWO if count == 2 and work.name in ("W1", "W2") else None
        yield Row(f"{way}: rounds in the time of one process's", Spread.of(gains), "x", target, ">=")
        yield Row(f"{way}: processor time at the controller, of one's", Spread.of(shares), "x")
        yield Row(f"{way}: final losses differ by", exactly(differ), "", 0.0)


def _target(work: Workload, optimizer: str, wish: Wish) -> float | None:
    if optimizer != "sgd":
        return None if wish else work.target_other
    return work.target_together if wish else work.target_sgd


def _seconds(train: Callable[[], None]) -> float:
    gc.collect()
    started = CPU()
    train()
    return CPU() - started


def _seconds_on_gpu(train: Callable[[], None]) -> float:
    gc.collect()
    started = WALL()
    train()
    torch.cuda.synchronize()
    return WALL() - started


def _seconds_by_both(train: Callable[[], None]) -> tuple[float, float]:
    """Return the time on the wall, and of the processor in this process."""
    gc.collect()
    started = WALL(), CPU()
    train()
    return WALL() - started[0], CPU() - started[1]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS), help="out of W1, W2, W3, W4")
    parser.add_argument("--optimizers", nargs="+", default=["sgd"], choices=OPTIMIZERS)
    parser.add_argument("--repetitions", type=int, default=5, help="pairs of measurements")
    parser.add_argument("--vectorize", action="store_true", help="also let workers take steps together")
    parser.add_argument(
        "--compile", action="store_true", help="steps together, compiled and not; graphs apart"
    )
    parser.add_argument("--metered", action="store_true", help="a torchmetric counts in each training step")
    parser.add_argument("--processes", type=int, help="beside one process instead of the loop by hand")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="two rounds, once: does it run?")
    return parser.parse_args()


if __name__ == "__main__":
    main()
