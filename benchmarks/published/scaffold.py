"""Karimireddy et al. 2020: what more local steps do to FedAvg and to SCAFFOLD where labels are skewed.

Their Table 3: logistic regression, a fifth of the clients a round, five local steps an epoch, data sorted by
label but for a share that is dealt at random ("similarity"); local learning rates are chosen for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from typing_extensions import override

from benchmarks.published.federation import ACCURACY, Classifier, Curve, Task, fit, linear
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
from fedlightning.algorithms import FedAvg, Scaffold
from fedlightning.data import Partitioner
from fedlightning.data.datasets import load_digits
from fedlightning.data.labels import find_labels
from fedlightning.data.map_style import MapStyle

Way = Literal["FedAvg", "SCAFFOLD"]
ALGORITHMS = {"FedAvg": FedAvg(weighting="uniform"), "SCAFFOLD": Scaffold()}
WAYS: tuple[Way, ...] = ("FedAvg", "SCAFFOLD")
SIMILARITIES = (0.0, 0.1)
# Rounds to an accuracy of 0.5 on EMNIST, by algorithm, local epochs and similarity.
PUBLISHED: dict[tuple[Way, int, float], str] = {
    ("FedAvg", 1, 0.0): "258",
    ("FedAvg", 10, 0.0): "711",
    ("SCAFFOLD", 1, 0.0): "77",
    ("SCAFFOLD", 10, 0.0): "286",
    ("FedAvg", 1, 0.1): "74",
    ("FedAvg", 10, 0.1): "25",
    ("SCAFFOLD", 1, 0.1): "62",
    ("SCAFFOLD", 10, 0.1): "16",
}
PAPER = "Karimireddy et al. 2020, Table 3"


@dataclass(frozen=True)
class Size:
    """Say how large the runs are.

    Args:
        workers: There are so many; a fifth of them in each round.
        batch_size: A fifth of what each has.
        epochs: Local ones that are compared, fewest first.
        rates: Learning rates to choose from.
        target: The accuracy to be reached.
        most: The most rounds.
    """

    workers: int
    batch_size: int
    epochs: tuple[int, ...]
    rates: tuple[float, ...]
    target: float
    most: int


FULL = Size(50, 6, (1, 10), (0.1, 0.3, 1.0), target=0.93, most=100)
QUICK = Size(10, 30, (1, 10), (0.3,), target=0.1, most=2)


@dataclass(frozen=True)
class SortedBut(Partitioner):
    """Deal a share of the samples at random, and the rest in the order of their labels.

    Args:
        similarity: The share.
    """

    similarity: float = 0.0

    @override
    def partition(
        self, dataset: MapStyle, num_workers: int, rng: np.random.Generator
    ) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
        labels = find_labels(dataset, None)
        order = rng.permutation(len(labels))
        alike = int(self.similarity * len(order))
        rest = order[alike:]
        rest = rest[np.argsort(labels[rest], kind="stable")]
        parts = (np.array_split(part, num_workers) for part in (order[:alike], rest))
        return [np.concatenate(own) for own in zip(*parts, strict=True)]


@dataclass(frozen=True)
class Case:
    """What is compared.

    Args:
        way: The algorithm.
        epochs: Local ones.
        similarity: Share of the data that is dealt at random.
    """

    way: Way
    epochs: int
    similarity: float


@dataclass(frozen=True)
class Run(Job):
    """Train until it is good enough.

    Args:
        case: What is compared.
        lr: Learning rate of local steps.
        seed: Of the draw of data, and of everything else.
        quick: Whether in the smallest form.
    """

    case: Case
    lr: float
    seed: int
    quick: bool = False

    @override
    def run(self) -> Curve:
        size = QUICK if self.quick else FULL
        return fit(
            _digits(self.seed),
            Classifier(linear(64, 10), self.lr),
            rounds=size.most,
            batch_size=size.batch_size,
            until=size.target,
            seed=self.seed,
            workers=size.workers,
            cohort_size=size.workers // 5,
            partition=SortedBut(self.case.similarity),
            local_epochs=self.case.epochs,
            algorithm=ALGORITHMS[self.case.way],
        )


def study(measure: Measure, effort: Effort) -> Report:
    """Choose learning rates, then count rounds."""
    size = QUICK if effort.quick else FULL
    cases = [Case(way, epochs, like) for like in SIMILARITIES for way in WAYS for epochs in size.epochs]

    def tried(case: Case, lr: float) -> list[Run]:
        return [Run(case, lr, seed, effort.quick) for seed in effort.tuning]

    tuned = measure([job for case in cases for lr in size.rates for job in tried(case, lr)])
    rates = {case: fastest(size.rates, partial(tried, case), tuned, size.target, size.most) for case in cases}
    jobs = {case: [Run(case, rates[case], seed, effort.quick) for seed in effort.seeds] for case in cases}
    curves = measure([job for own in zip(*jobs.values(), strict=True) for job in own])
    crossings = {
        case: Crossings.of([curves[job] for job in own], size.target, size.most) for case, own in jobs.items()
    }
    details = Table(
        ("similarity", "algorithm", "local epochs", "learning rate", "rounds"),
        [
            (
                f"{case.similarity:.0%}",
                case.way,
                str(case.epochs),
                f"{rates[case]:g}",
                crossings[case].interval.text(),
            )
            for case in cases
        ],
    )
    values = Table(
        ("similarity", "algorithm", "local epochs", "learning rate", "seed", "rounds"),
        [
            (
                f"{case.similarity:g}",
                case.way,
                str(case.epochs),
                f"{rates[case]:g}",
                str(seed),
                f"{rounds:.2f}",
            )
            for case in cases
            for seed, rounds in zip(effort.seeds, crossings[case].rounds, strict=True)
        ],
    )
    return Report(list(_claims(crossings, size.epochs)), details, values, draw(jobs, curves, size))


def draw(jobs: Mapping[Case, Sequence[Job]], curves: Curves, size: Size) -> Figure:
    """Draw the best accuracy so far over rounds, a line for each draw of data."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    for axis, like in zip(figure.subplots(1, len(SIMILARITIES), sharey=True), SIMILARITIES, strict=True):
        own = [case for case in jobs if case.similarity == like]
        for number, case in enumerate(own):
            for index, job in enumerate(jobs[case]):
                curve = curves[job]
                axis.plot(
                    curve.rounds,
                    np.maximum.accumulate(curve.metrics[ACCURACY]),
                    color=f"C{number}",
                    label=f"{case.way}, {case.epochs} epochs" if index == 0 else None,
                    alpha=0.6,
                    linewidth=0.8,
                )
        axis.axhline(size.target, color="black", linestyle=":", linewidth=0.8)
        axis.set(
            title=f"similarity {like:.0%}", xlabel="rounds", ylabel="best test accuracy so far", ylim=(0.5, 1)
        )
        axis.legend(loc="lower right", frameon=False, fontsize=8)
    return figure


def _claims(crossings: Mapping[Case, Crossings], epochs: Sequence[int]) -> Iterator[Claim]:
    few, many = epochs[0], epochs[-1]
    for like in SIMILARITIES:
        for count in (few, many):
            yield _claim(
                f"similarity {like:.0%}, {count} local epochs: FedAvg needs more rounds than SCAFFOLD",
                PUBLISHED["FedAvg", count, like] + " / " + PUBLISHED["SCAFFOLD", count, like],
                crossings[Case("FedAvg", count, like)],
                crossings[Case("SCAFFOLD", count, like)],
            )
    yield _claim(
        f"similarity 0%: FedAvg needs more rounds with {many} local epochs than with {few}",
        PUBLISHED["FedAvg", many, 0.0] + " / " + PUBLISHED["FedAvg", few, 0.0],
        crossings[Case("FedAvg", many, 0.0)],
        crossings[Case("FedAvg", few, 0.0)],
    )
    for way in WAYS:
        yield _claim(
            f"similarity 10%: {way} needs fewer rounds with {many} local epochs than with {few}",
            PUBLISHED[way, few, 0.1] + " / " + PUBLISHED[way, many, 0.1],
            crossings[Case(way, few, 0.1)],
            crossings[Case(way, many, 0.1)],
        )


def _claim(says: str, published: str, slow: Crossings, fast: Crossings) -> Claim:
    ours = ratio(slow, fast)
    return Claim(PAPER, says, f"{published} rounds", ours, f"{ours.text()} times", beyond=1.0)


@cache
def _digits(seed: int) -> Task:
    return Task(*load_digits(seed=seed))
