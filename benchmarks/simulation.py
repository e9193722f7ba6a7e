"""Measure what a simulated federation costs beside a loop by hand: ``python -m benchmarks.simulation``.

Both train the same network on the same samples in the same order, in turn, in one process with one thread.
What counts is the processor's time for all of `Trainer.fit`, start-up and one validation included; on a GPU,
and for several processes beside one, the time on the wall. Of other systems that work in several processes,
it is what all of these compute, their start told apart. What is trained lives in `workloads`.
"""

from __future__ import annotations

import argparse
import gc
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.utils.data import TensorDataset

from benchmarks.at_once import LoopsAtOnce
from benchmarks.compiling import LEAST_ROUNDS, compiled
from benchmarks.measuring import CPU, WALL, Spread
from benchmarks.peers import PEERS
from benchmarks.peers.peer import Peer, Took
from benchmarks.table import Row, exactly, render
from benchmarks.vmapped import by_vmap
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
    installed = _installed(arguments.peers)
    for name in arguments.workloads:
        work = WORKLOADS[name].shortened(QUICK_ROUNDS if arguments.quick else arguments.rounds)
        if arguments.processes is not None:
            print(
                render(in_processes(work, arguments.optimizers, repetitions, arguments.processes)), flush=True
            )
            continue
        if arguments.compile:
            work = WORKLOADS[name].shortened(LEAST_ROUNDS) if arguments.quick else WORKLOADS[name]
            print(render(compiled(work, arguments.optimizers, repetitions)), flush=True)
            continue
        peers = _able(installed, work)
        print(
            render(
                measured(
                    work,
                    arguments.optimizers,
                    repetitions,
                    vectorize=arguments.vectorize,
                    metered=arguments.metered,
                    device=arguments.device,
                    peers=peers,
                )
            ),
            flush=True,
        )


def _installed(names: list[str] | None) -> list[Peer]:
    """Return those that are asked for and there: of all, where no name is given."""
    if names is None:
        return []
    names = names or list(PEERS)
    for name in names:
        if PEERS[name].version is None:
            print(f"skipped: {name} needs the package {PEERS[name].package}, which is not installed")
    return [PEERS[name] for name in names if PEERS[name].version is not None]


def _able(peers: list[Peer], work: Workload) -> list[Peer]:
    """Return those that can be measured on a workload."""
    for peer in peers:
        if not peer.takes(work):
            print(f"skipped: {work.name} {peer.way}: at most {peer.most_workers} workers, all in each round")
    return [peer for peer in peers if peer.takes(work)]


def measured(
    work: Workload,
    optimizers: list[str],
    repetitions: int,
    *,
    vectorize: bool = False,
    metered: bool = False,
    device: str = "cpu",
    peers: Sequence[Peer] = (),
) -> Iterator[Row]:
    """Measure one workload.

    Args:
        work: What is trained.
        optimizers: Names out of `OPTIMIZERS`.
        repetitions: How often all ways are measured, in turn.
        vectorize: Whether the workers' steps are also taken together, where a trial finds that faster; with
            plain SGD, beside what a researcher writes by hand with `torch.func`.
        metered: Whether a torchmetric counts in each training step, of both.
        device: Where network and samples are.
        peers: Other systems that train the same, with plain SGD.

    Yields:
        For each optimizer what a way takes, as a multiple of the loop by hand, and by how much they differ.
    """
    dataset = work.dataset(device)
    orders = Orders(work, dataset)
    for name in optimizers:
        make = OPTIMIZERS[name]
        hand = _by_hand(work, make, dataset, orders, metered=metered)
        ways = list(_ways(work, name, dataset, orders, vectorize=vectorize, metered=metered))
        if name == "sgd" and not metered:
            ways += [_in_peer(peer, work, dataset, orders) for peer in peers]
        # The first turn warms up.
        first, *turns = [_one_turn(work, hand, ways, dataset) for _ in range(repetitions + 1)]
        for number, way in enumerate(ways):
            what = f"{work.name}, {name}{way.label}" + (" metered" if metered else "")
            results = [turn[number] for turn in turns]
            once = [result.once for result in results if result.once is not None]
            rounds = ": rounds beside the loop by hand's" if once else ": beside the loop by hand"
            yield Row(f"{what}{rounds}", Spread.of([result.ratio for result in results]), "x", way.target)
            if once:
                yield Row(f"{what}: once, seconds", Spread.of(once), "s")
            yield Row(f"{what}: final losses differ by", exactly(first[number].differs), "", AGREEMENT)


@dataclass(frozen=True)
class _Way:
    """One way to train a workload.

    Args:
        label: What tells its rows from others.
        target: The most that it may take, as a multiple of the loop by hand.
        train: Trains an untrained network in place; says how long it took, if the caller cannot see that.
    """

    label: str
    target: float | None
    train: Callable[[nn.Module], Took | None]


@dataclass(frozen=True)
class _Result:
    """Say what one turn of a way came to.

    Args:
        ratio: How many times as long it took as the loop by hand.
        once: Seconds of its start, where that is told apart.
        differs: By how much the final losses differ.
    """

    ratio: float
    once: float | None
    differs: float


def _by_hand(
    work: Workload, make: MakeOptimizer, dataset: TensorDataset, orders: Orders, *, metered: bool
) -> _Way:
    def train(net: nn.Module) -> None:
        by_hand(work, net, make, dataset, orders, metered=metered)

    return _Way("", None, train)


def _ways(
    work: Workload, optimizer: str, dataset: TensorDataset, orders: Orders, *, vectorize: bool, metered: bool
) -> Iterator[_Way]:
    def ours(net: nn.Module, wish: Wish) -> None:
        module = (Metered if metered else Module)(net, OPTIMIZERS[optimizer])
        by_strategy(work, module, dataset, wish)

    def target(wish: Wish) -> float | None:
        return None if metered else _target(work, optimizer, wish)

    yield _Way("", target(False), partial(ours, wish=False))
    if vectorize:
        yield _Way(" together", target("auto"), partial(ours, wish="auto"))
    if vectorize and not metered and optimizer == "sgd":
        yield _Way(" by hand with vmap", None, lambda net: by_vmap(work, net, dataset, orders))


def _in_peer(peer: Peer, work: Workload, dataset: TensorDataset, orders: Orders) -> _Way:
    train = peer.load()
    label = f" {peer.way} {peer.version}".rstrip()
    return _Way(label, None, lambda net: train(work, net, dataset, orders))


def _one_turn(work: Workload, hand: _Way, ways: list[_Way], dataset: TensorDataset) -> list[_Result]:
    device = dataset.tensors[0].device

    def trained(way: _Way) -> tuple[Took, float]:
        net = work.net().to(device)
        took = _took(partial(way.train, net), device)
        return took, final_loss(net.to(device), dataset)

    by_hand_took, expected = trained(hand)
    turn = []
    for way in ways:
        took, loss = trained(way)
        turn.append(_Result(took.rounds / by_hand_took.rounds, took.once, abs(expected - loss)))
    return turn


def in_processes(work: Workload, optimizers: list[str], repetitions: int, count: int) -> Iterator[Row]:
    """Measure one workload in several processes, beside one.

    Args:
        work: What is trained.
        optimizers: Names out of `OPTIMIZERS`.
        repetitions: How often both are measured, in turn, after a first turn in which processes start.
        count: How many processes.

    Yields:
        For each optimizer how many times as many rounds they do in the same time, what as many loops by hand
        gain that have nothing to do with each other, how much of the processor's time is still needed in this
        process, and by how much the losses differ.
    """
    dataset = work.dataset()
    for name in optimizers:
        gains, at_once, shares, differ = [], [], [], 0.0
        loops = LoopsAtOnce(work, name, count)
        for turn in range(repetitions + 1):
            by_loops = loops.gain()
            modules = [Module(work.net(), OPTIMIZERS[name]) for _ in range(2)]
            one, several = (
                _seconds_by_both(partial(by_strategy, work, module, dataset, processes=processes))
                for module, processes in zip(modules, (None, count), strict=True)
            )
            losses = [final_loss(module.net, dataset) for module in modules]
            differ = max(differ, abs(losses[0] - losses[1]))
            if turn:
                gains.append(one[0] / several[0])
                at_once.append(by_loops)
                shares.append(several[1] / one[1])
        loops.close()
        way = f"{work.name}, {name}, {count} processes"
        target = TARGET_OF_TWO if count == 2 and work.name in ("W1", "W2") else None
        yield Row(f"{way}: rounds in the time of one process's", Spread.of(gains), "x", target, ">=")
        yield Row(f"{way}: {count} loops by hand at once, beside one", Spread.of(at_once), "x")
        yield Row(f"{way}: processor time at the controller, of one's", Spread.of(shares), "x")
        yield Row(f"{way}: final losses differ by", exactly(differ), "", 0.0)


def _target(work: Workload, optimizer: str, wish: Wish) -> float | None:
    if optimizer != "sgd":
        return None if wish else work.target_other
    return work.target_together if wish else work.target_sgd


def _took(train: Callable[[], Took | None], device: torch.device) -> Took:
    clock = CPU if device.type == "cpu" else WALL
    gc.collect()
    started = clock()
    took = train()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return took or Took(clock() - started)


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
        "--compile",
        action="store_true",
        help="steps together, ours and by hand, compiled and not; graphs apart",
    )
    parser.add_argument("--metered", action="store_true", help="a torchmetric counts in each training step")
    parser.add_argument("--processes", type=int, help="beside one process instead of the loop by hand")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=PEERS,
        help="also train in other systems (all of them, unless named) where they are installed",
    )
    parser.add_argument("--rounds", type=int, default=1000, help="at most so many")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="two rounds, once: does it run?")
    return parser.parse_args()


if __name__ == "__main__":
    main()
