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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
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
from fedlightning.local.vectorised.trial import Wish
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
        works: Whose peaks of memory are compared with those of a loop by hand.
    """

    workers: int
    few: int
    rounds: int
    settled: int
    works: Sequence[Workload]


FULL = Effort(1_000_000, 1_000, 1_000, 100, [work.shortened(3) for work in WORKLOADS.values()])
QUICK = Effort(2_000, 200, 6, 2, [WORKLOADS["W4"].shortened(1)])
WAYS: dict[str, Wish] = {"one by one": False, "together": True}


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


def fitted(workers: int, rounds: int, vectorize: Wish, samples: int = 2) -> tuple[float, Watch, pl.Trainer]:
    """Fit a linear classifier with a cohort of ten workers per round.

    Args:
        workers: Virtual workers.
        rounds: Rounds.
        vectorize: Whether a cohort takes its steps together.
        samples: Samples of each.

    Returns:
        When `Trainer.fit` was called, what was noted in it, and the Trainer.
    """
    count = workers * samples
    data = TensorDataset(torch.randn(count, FEATURES), torch.randint(CLASSES, (count,)))
    watch = Watch()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        strategy=FederatedStrategy(
            workers, cohort_size=COHORT, rounds_per_epoch=rounds, seed=SEED, vectorize=vectorize
        ),
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    gc.collect()
    started = CPU()
    trainer.fit(Module(logistic_regression(), OPTIMIZERS["sgd"]), DataLoader(data, samples, shuffle=True))
    return started, watch, trainer


def measured(effort: Effort) -> Iterator[Row]:
    """Measure one federation after the other, each in a process of its own."""
    many, few = effort.workers, effort.few
    for way, wish in WAYS.items():
        start, round_of_many, saving = _alone(_seconds, many, wish, effort)
        _, round_of_few, _ = _alone(_seconds, few, wish, effort)
        if wish is False:
            per_100_000 = exactly(start / many * 100_000)
            yield Row(f"start-up of {many:,} workers, per 100,000", per_100_000, "s", PER_100_000)
            yield Row(f"a checkpoint of {many:,} workers, after its first", exactly(saving), "s")
        ratio = exactly(round_of_many / round_of_few)
        yield Row(f"a round of {COHORT} out of {many:,} beside one out of {few:,}, {way}", ratio, "x")
        for workers in (few, many // 10):
            growth = exactly(100 * _alone(_growth, workers, wish, effort))
            what = f"memory from round {effort.settled} to {effort.rounds}, {workers:,} workers, {way}"
            yield Row(what, growth, "%", GROWTH)
    for work in effort.works:
        bare, bare_above = _alone(_peak, None, work)
        for way, wish in WAYS.items():
            peak, above = _alone(_peak, wish, work)
            what = f"peak of memory beside the loop by hand, {work.name} {way}"
            yield Row(what, exactly(peak / bare), "x", PEAK)
            yield Row("  the same, MB more than imports and data", exactly((above - bare_above) / 1e6), "MB")


def _seconds(workers: int, vectorize: Wish, effort: Effort) -> tuple[float, float, float]:
    """Measure seconds until the first round is over, of a round, and of saving a checkpoint."""
    started, watch, trainer = fitted(workers, max(effort.rounds // 5, 2), vectorize, samples=1)
    each = (watch.seconds[-1] - watch.seconds[0]) / (len(watch.seconds) - 1)
    with TemporaryDirectory() as folder:
        trainer.save_checkpoint(Path(folder) / "first.ckpt")
        before = CPU()
        trainer.save_checkpoint(Path(folder) / "second.ckpt")
        saving = CPU() - before
    return watch.seconds[0] - started, each, saving


def _growth(workers: int, vectorize: Wish, effort: Effort) -> float:
    _, watch, _ = fitted(workers, effort.rounds, vectorize)
    return watch.resident[-1] / watch.resident[effort.settled - 1] - 1


def _peak(vectorize: Wish | None, work: Workload) -> tuple[int, int]:
    """Return the most bytes in memory, and how much more that is than before the training.

    Both ways have imported the same, Lightning included, and hold the same data.

    Args:
        vectorize: As for `by_strategy`; ``None`` for the loop by hand.
        work: What is trained.
    """
    make, dataset, net = OPTIMIZERS["sgd"], work.dataset(), work.net()
    orders = Orders(work, dataset) if vectorize is None else None
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here, not that of the data
    if orders is not None:
        by_hand(work, net, make, dataset, orders)
    else:
        by_strategy(work, Module(net, make), dataset, vectorize or False)
    peak = _status("VmHWM")
    return peak, peak - before


def _status(name: str) -> int:
    """Return what Linux tells of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


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
