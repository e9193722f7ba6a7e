"""McMahan et al. 2017: how many rounds local epochs save, beside one gradient of each worker a round.

Their Table 2: a tenth of the workers a round, FedSGD (E=1, B=inf) against FedAvg with E=5, B=10, IID and with
two shards of the data sorted by label at each; learning rates are chosen for each on a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import TensorDataset
from typing_extensions import override

from benchmarks.published.federation import Classifier, Curve, Task, fit
from benchmarks.published.study import (
    Claim,
    Crossings,
    Curves,
    Effort,
    Job,
    Measure,
    Report,
    Table,
    fastest,
    ratio,
)
from benchmarks.workloads import two_layers
from fedlightning.data import IID, Partitioner, TwoShards
from fedlightning.data.datasets import load_mnist5k

Way = Literal["FedSGD", "FedAvg"]
Division = Literal["IID", "two shards"]
WAYS: tuple[Way, ...] = ("FedSGD", "FedAvg")
PARTITIONS: dict[Division, Partitioner] = {"IID": IID(), "two shards": TwoShards()}
PUBLISHED: dict[Division, str] = {
    "IID": "626 / 20 rounds = 31 (CNN, all of MNIST, to 99%)",
    "two shards": "483 / 229 rounds = 2.1 (likewise)",
}
PAPER = "McMahan et al. 2017, Table 2"


@dataclass(frozen=True)
class Size:
    """Say how large the runs are.

    Args:
        workers: There are so many.
        cohort: So many of them in each round.
        train: Images at all workers.
        targets: The accuracy to be reached.
        most: The most rounds, of FedSGD and FedAvg.
        rates: Learning rates to choose from, likewise.
    """

    workers: int
    cohort: int
    train: int
    targets: dict[Division, float]
    most: dict[Way, int]
    rates: dict[Way, Sequence[float]]


FULL = Size(
    workers=50,
    cohort=5,
    train=4000,
    targets={"IID": 0.90, "two shards": 0.80},
    most={"FedSGD": 300, "FedAvg": 80},
    rates={"FedSGD": (0.1, 0.2, 0.4, 0.8), "FedAvg": (0.03, 0.1, 0.2, 0.4)},
)
QUICK = Size(
    workers=4,
    cohort=2,
    train=40,
    targets={"IID": 0.1, "two shards": 0.1},
    most={"FedSGD": 2, "FedAvg": 2},
    rates={"FedSGD": (0.1,), "FedAvg": (0.1,)},
)


@dataclass(frozen=True)
class Run(Job):
    """Train the 2NN until it is good enough.

    Args:
        way: The algorithm.
        division: How the images are divided.
        lr: Learning rate.
        seed: Of the draw of data, and of everything else.
        quick: Whether in the smallest form.
    """

    way: Way
    division: Division
    lr: float
    seed: int
    quick: bool = False

    @override
    def run(self) -> Curve:
        size = QUICK if self.quick else FULL
        local: dict[str, Any] = {"local_steps": 1} if self.way == "FedSGD" else {"local_epochs": 5}
        return fit(
            _images(size.train, self.seed),
            Classifier(_net(self.seed), self.lr),
            rounds=size.most[self.way],
            batch_size=None if self.way == "FedSGD" else 10,
            until=size.targets[self.division],
            seed=self.seed,
            workers=size.workers,
            cohort_size=size.cohort,
            partition=PARTITIONS[self.division],
            **local,
        )


def study(measure: Measure, effort: Effort) -> Report:
    """Choose learning rates, then count rounds."""
    size = QUICK if effort.quick else FULL
    cases = [(way, division) for division in PARTITIONS for way in WAYS]
    tried = {case: _grid(*case, size, effort) for case in cases}
    tuned = measure([job for jobs in tried.values() for job in jobs])
    rates = {case: _best(tried[case], tuned, size) for case in cases}
    jobs = {case: [Run(*case, rates[case], seed, effort.quick) for seed in effort.seeds] for case in cases}
    curves = measure([job for own in jobs.values() for job in own])
    crossings = {
        (way, division): Crossings.of(
            [curves[job] for job in jobs[way, division]], size.targets[division], size.most[way]
        )
        for way, division in cases
    }
    claims = [
        _claim(division, crossings["FedSGD", division], crossings["FedAvg", division])
        for division in PARTITIONS
    ]
    details = Table(
        ("data", "algorithm", "accuracy", "learning rate", "rounds"),
        [
            (
                division,
                way,
                f"{size.targets[division]:.0%}",
                f"{rates[way, division]:g}",
                crossings[way, division].interval.text(),
            )
            for way, division in cases
        ],
    )
    values = Table(
        ("data", "algorithm", "learning rate", "seed", "rounds"),
        [
            (division, way, f"{rates[way, division]:g}", str(seed), f"{rounds:.2f}")
            for way, division in cases
            for seed, rounds in zip(effort.seeds, crossings[way, division].rounds, strict=True)
        ],
    )
    return Report(claims, details, values, draw(jobs, curves, size))


def draw(jobs: dict[tuple[Way, Division], list[Run]], curves: Curves, size: Size) -> Figure:
    """Draw the accuracy of every draw of data over rounds."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for division, axis in zip(PARTITIONS, figure.subplots(1, 2), strict=True):
        for number, way in enumerate(WAYS):
            for index, job in enumerate(jobs[way, division]):
                curve = curves[job]
                label = way if index == 0 else None
                axis.plot(
                    curve.rounds,
                    curve.metrics["accuracy"],
                    color=f"C{number}",
                    label=label,
                    alpha=0.5,
                    linewidth=0.8,
                )
        axis.axhline(size.targets[division], color="black", linestyle=":", linewidth=0.8)
        axis.set(title=division, xlabel="rounds", ylabel="test accuracy", xscale="log")
        axis.legend(loc="lower right", frameon=False)
    return figure


def _claim(division: Division, slow: Crossings, fast: Crossings) -> Claim:
    ours = ratio(slow, fast)
    says = f"{division}: FedSGD needs more rounds than FedAvg with E=5, B=10"
    return Claim(PAPER, says, PUBLISHED[division], ours, f"{ours.text()} times", beyond=1.0)


def _grid(way: Way, division: Division, size: Size, effort: Effort) -> list[Run]:
    return [Run(way, division, lr, seed, effort.quick) for lr in size.rates[way] for seed in effort.tuning]


def _best(tried: Sequence[Run], curves: Curves, size: Size) -> float:
    first = tried[0]
    return fastest(
        sorted({job.lr for job in tried}),
        lambda lr: [job for job in tried if job.lr == lr],
        curves,
        size.targets[first.division],
        size.most[first.way],
    )


def _net(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return two_layers()


@cache
def _images(train: int, seed: int) -> Task:
    parts = load_mnist5k(seed=seed)
    return Task(TensorDataset(*parts.train[:train]), parts.val)
