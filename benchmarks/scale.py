"""Measure what many workers and many rounds cost: ``python -m benchmarks.scale``.

Virtual workers that nobody has visited should cost their names, a round what its cohort costs, and a
thousand rounds no more memory than a hundred. How fast local work is, is measured in `simulation`.
"""

from __future__ import annotations

import argparse
import gc
import logging
import resource
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from benchmarks.measuring import CPU
from benchmarks.table import Row, exactly, render
from benchmarks.workloads import (
    CLASSES,
    OPTIMIZERS,
    SEED,
    WORKLOADS,
    Module,
    Orders,
    Workload,
    by_hand,
    by_strategy,
    logistic_regression,
)
from fedlightning.strategy import FederatedStrategy

FEATURES = 60
COHORT = 10
PER_100_000 = 1.0
GROWTH = 1.0
PEAK = 1.2
PAGE = resource.getpagesize()


@dataclass(frozen=True)
class Effort:
    """Say how much to measure.

    Args:
        workers: The larger federation.
        few: The smaller one.
        rounds: For which memory is watched.
        settled: The round from which on it should not grow.
        work: Whose peak of memory is compared with that of a loop by hand.
    """

    workers: int
    few: int
    rounds: int
    settled: int
    work: Workload


FULL = Effort(1_000_000, 1_000, 1_000, 100, WORKLOADS["W1"].shortened(5))
QUICK = Effort(2_000, 200, 6, 2, WORKLOADS["W4"].shortened(1))


@dataclass
class Watch(pl.Callback):
    """Note time and memory at the end of each round.

    Args:
        seconds: Of the processor, since the process started.
        resident: Bytes in memory.
    """

    seconds: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    @override
    def on_train_batch_end(self, *args: Any) -> None:
        self.seconds.append(CPU())
        self.resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE)


def fitted(workers: int, rounds: int, samples: int = 2) -> tuple[float, Watch]:
    """Fit a linear classifier with a cohort of ten workers per round.

    Args:
        workers: Virtual workers.
        rounds: Rounds.
        samples: Samples of each.

    Returns:
        When `Trainer.fit` was called, and what was noted in it.
    """
    count = workers * samples
    data = TensorDataset(torch.randn(count, FEATURES), torch.randint(CLASSES, (count,)))
    watch = Watch()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        strategy=FederatedStrategy(workers, cohort_size=COHORT, rounds_per_epoch=rounds, seed=SEED),
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    gc.collect()
    started = CPU()
    trainer.fit(Module(logistic_regression(), OPTIMIZERS["sgd"]), DataLoader(data, samples, shuffle=True))
    return started, watch


def measured(effort: Effort) -> Iterator[Row]:
    """Measure one federation after the other, each in a process of its own."""
    start, round_of_many, _ = _alone(_seconds, effort.workers, effort)
    _, round_of_few, _ = _alone(_seconds, effort.few, effort)
    per_100_000 = exactly(start / effort.workers * 100_000)
    yield Row(f"start-up of {effort.workers:,} workers, per 100,000", per_100_000, "s", PER_100_000)
    yield Row(
        f"a round of {COHORT} out of {effort.workers:,} beside one out of {effort.few:,}",
        exactly(round_of_many / round_of_few),
        "x",
    )
    for workers in (effort.few, effort.workers // 10):
        growth = _alone(_growth, workers, effort)
        what = f"memory from round {effort.settled} to {effort.rounds}, {workers:,} workers"
        yield Row(what, exactly(100 * growth), "%", GROWTH)
    ours, bare = _alone(_peak, True, effort), _alone(_peak, False, effort)
    yield Row(f"peak of memory beside the loop by hand, {effort.work.name}", exactly(ours / bare), "x", PEAK)


def _seconds(workers: int, effort: Effort) -> tuple[float, float, int]:
    started, watch = fitted(workers, max(effort.rounds // 5, 2), samples=1)
    each = (watch.seconds[-1] - watch.seconds[0]) / (len(watch.seconds) - 1)
    return watch.seconds[0] - started, each, watch.resident[-1]


def _growth(workers: int, effort: Effort) -> float:
    _, watch = fitted(workers, effort.rounds)
    return watch.resident[-1] / watch.resident[effort.settled - 1] - 1


def _peak(ours: bool, effort: Effort) -> int:
    work, make = effort.work, OPTIMIZERS["sgd"]
    dataset = work.dataset()
    if ours:
        by_strategy(work, Module(work.net(), make), dataset)
    else:
        by_hand(work, work.net(), make, dataset, Orders(work, dataset))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _alone(measure: Callable[..., Any], *args: Any) -> Any:
    """Measure in a fresh process: memory that was used before would hide what is used now."""
    with get_context("spawn").Pool(1, initializer=_quietly) as pool:
        return pool.apply(measure, args)


def _quietly() -> None:
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few workers and rounds: does it run?")
    quick = parser.parse_args().quick
    print(render(measured(QUICK if quick else FULL)), flush=True)


if __name__ == "__main__":
    main()
