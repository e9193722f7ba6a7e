"""Loops by hand that run at once, each in a process of its own: what a machine has to give to processes.

They have nothing to do with each other, but share caches and memory. No federation gains more than they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch

from benchmarks.measuring import WALL
from benchmarks.workloads import OPTIMIZERS, Orders, Workload, by_hand


class LoopsAtOnce:
    """Keep processes in which loops by hand run when they are asked for.

    Args:
        work: What is trained.
        optimizer: A name out of `OPTIMIZERS`.
        count: How many processes.
    """

    def __init__(self, work: Workload, optimizer: str, count: int) -> None:
        context = get_context("spawn")
        self._lines: list[Connection] = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            context.Process(target=_serve, args=(theirs, work, optimizer), daemon=True).start()
            theirs.close()
            self._lines.append(ours)
        for line in self._lines:
            line.recv()  # it is ready

    def gain(self) -> float:
        """Return how many loops all of the processes finish in the time in which one of them finishes one."""
        return len(self._lines) * _seconds(self._lines[:1]) / _seconds(self._lines)

    def close(self) -> None:
        """Let the processes end."""
        for line in self._lines:
            line.close()


def _seconds(lines: Sequence[Connection]) -> float:
    started = WALL()
    for line in lines:
        line.send(None)
    for line in lines:
        line.recv()
    return WALL() - started


def _serve(line: Connection, work: Workload, optimizer: str) -> None:
    torch.set_num_threads(1)
    dataset = work.dataset()
    orders = Orders(work, dataset)
    try:
        while True:
            line.send(None)
            line.recv()
            by_hand(work, work.net(), OPTIMIZERS[optimizer], dataset, orders)
    except EOFError:
        return
