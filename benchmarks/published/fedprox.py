"""Li et al. 2020: what a proximal term does where workers differ, and where some do not finish their work.

Their section 5: Synthetic IID, (0, 0), (0.5, 0.5), (1, 1); logistic regression; 30 workers whose sizes have a
long tail, 10 of them drawn uniformly in a round and averaged by their samples; 20 epochs in batches of 10 at
a rate of 0.01; none, half, or nine tenths of them stragglers, whose partial work FedAvg drops. Here all that
is tried in small, and what the paper shows of nine tenths of stragglers in large.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import mean
from typing import Literal, TypeAlias

import numpy as np
from matplotlib.figure import Figure
from typing_extensions import override

from benchmarks.published.federation import ACCURACY, LOSS, Classifier, Curve, Task, fit, linear
from benchmarks.published.intervals import interval
from benchmarks.published.study import Claim, Curves, Effort, Job, Measure, Report, Table, difference
from fedlightning.algorithms import FedProx, Stragglers
from fedlightning.data import Partitioner
from fedlightning.data.datasets import make_synthetic

Way = Literal["FedAvg", "mu=0", "mu=1"]
WAYS: tuple[Way, ...] = ("FedAvg", "mu=0", "mu=1")
PROXIMAL: dict[Way, float] = {"FedAvg": 0.0, "mu=0": 0.0, "mu=1": 1.0}
SETS: dict[str, tuple[float, float] | None] = {
    "IID": None,
    "(0, 0)": (0.0, 0.0),
    "(0.5, 0.5)": (0.5, 0.5),
    "(1, 1)": (1.0, 1.0),
}
SHARES = (0.0, 0.5, 0.9)
HIGHEST = SHARES[-1]
UNLIKE = [data for data, spread in SETS.items() if spread is not None]
PAPER = "Li et al. 2020, section 5"
Scale = Literal["small", "large"]
Case: TypeAlias = tuple[Scale, str, float, Way]
Ends: TypeAlias = Mapping[Case, list[float]]
_ORDER: tuple[tuple[Way, Way], ...] = (("FedAvg", "mu=0"), ("mu=0", "mu=1"))
_BEST_AND_WORST: tuple[Way, Way] = ("mu=1", "FedAvg")


@dataclass(frozen=True)
class Size:
    """Say how large the runs are.

    Args:
        samples: The most of a worker.
        batch: Samples of a local step.
        rate: Learning rate of local steps. Twice the batch at twice the rate goes as far in half the steps.
        epochs: Of a visit that is not cut short.
        rounds: So many.
        averaged: Of these, the last ones over which a run is averaged: with ten workers of thirty, and one
            of thirty where the stragglers are dropped, rounds differ much.
    """

    samples: int
    batch: int
    rate: float
    epochs: int
    rounds: int
    averaged: int


WORKERS = 30
COHORT = 10
SIZES: dict[Scale, Size] = {
    "small": Size(samples=60, batch=20, rate=0.02, epochs=20, rounds=12, averaged=4),
    # With sizes of a long tail, those who have most drift furthest: what the proximal term is for.
    "large": Size(samples=1000, batch=50, rate=0.05, epochs=20, rounds=40, averaged=10),
}
QUICK = Size(samples=50, batch=20, rate=0.02, epochs=1, rounds=2, averaged=1)


@dataclass(frozen=True)
class Run(Job):
    """Train for a number of rounds, and test the global module on what all workers have after each.

    Args:
        scale: How large.
        data: A name in `SETS`.
        share: Of stragglers.
        way: The algorithm.
        seed: Of the draw of data, and of everything else.
        quick: Whether in the smallest form.
    """

    scale: Scale
    data: str
    share: float
    way: Way
    seed: int
    quick: bool = False

    @override
    def run(self) -> Curve:
        size = _size(self.scale, quick=self.quick)
        task, partition = _synthetic(self.data, size.samples, self.seed)
        return fit(
            task,
            Classifier(linear(60, 10), size.rate),
            rounds=size.rounds,
            batch_size=size.batch,
            seed=self.seed,
            workers=WORKERS,
            cohort_size=COHORT,
            partition=partition,
            local_epochs=size.epochs,
            # Visits of very unequal lengths have few steps that can be taken together.
            vectorize=self.scale == "small",
            algorithm=FedProx(PROXIMAL[self.way]),
            participation=Stragglers(self.share, drop=self.way == "FedAvg"),
        )


def study(measure: Measure, effort: Effort) -> Report:
    """Run all sets, shares of stragglers and algorithms in small, and what is claimed of them in large."""
    cases: list[Case] = [("small", data, share, way) for data in SETS for share in SHARES for way in WAYS]
    cases += [("large", data, HIGHEST, way) for data in UNLIKE for way in WAYS]
    # Without stragglers there is nothing to drop: FedAvg is FedProx with mu=0, to the bit.
    jobs: dict[Case, list[Run]] = {
        (scale, data, share, way): [
            Run(scale, data, share, way if share else _undropped(way), seed, effort.quick)
            for seed in effort.seeds
        ]
        for scale, data, share, way in cases
    }
    curves = measure([job for own in zip(*jobs.values(), strict=True) for job in own])
    ends = {
        metric: {
            case: [_end(curves[job], metric, _size(case[0], quick=effort.quick)) for job in own]
            for case, own in jobs.items()
        }
        for metric in (LOSS, ACCURACY)
    }
    details = Table(
        ("runs", "stragglers", "algorithm", *(f"{data}: loss, accuracy" for data in SETS)),
        [
            (scale, f"{share:.0%}", way, *(_cell(ends, (scale, data, share, way)) for data in SETS))
            for scale, share in _rows(cases)
            for way in WAYS
        ],
    )
    values = Table(
        ("runs", "data", "stragglers", "algorithm", "seed", "loss", "accuracy"),
        [
            (scale, data, f"{share:g}", way, str(seed), f"{loss:.4f}", f"{accuracy:.4f}")
            for scale, data, share, way in cases
            for seed, loss, accuracy in zip(
                effort.seeds,
                ends[LOSS][scale, data, share, way],
                ends[ACCURACY][scale, data, share, way],
                strict=True,
            )
        ],
    )
    return Report(list(_claims(ends[LOSS], ends[ACCURACY])), details, values, draw(jobs, curves))


def draw(jobs: Mapping[Case, Sequence[Job]], curves: Curves) -> Figure:
    """Draw the training loss over rounds with its interval; the paper's figures have a single draw."""
    figure = Figure(figsize=(11, 9), layout="constrained")
    rows = _rows(jobs)
    axes = figure.subplots(len(rows), len(SETS), sharex="row", sharey="col")
    for (scale, share), row in zip(rows, axes, strict=True):
        for axis, data in zip(row, SETS, strict=True):
            if (scale, data, share, WAYS[0]) not in jobs:
                axis.set_axis_off()
                continue
            for number, way in enumerate(WAYS):
                own = [curves[job] for job in jobs[scale, data, share, way]]
                bands = [interval(values) for values in zip(*(c.metrics[LOSS] for c in own), strict=True)]
                rounds = own[0].rounds
                axis.plot(rounds, [band.middle for band in bands], f"C{number}", label=way)
                low, high = [band.low for band in bands], [band.high for band in bands]
                axis.fill_between(rounds, low, high, color=f"C{number}", alpha=0.2, linewidth=0)
            axis.set_title(f"{data}, {share:.0%} stragglers, {scale}", fontsize=9)
    figure.supxlabel("rounds")
    figure.supylabel("training loss of the global model")
    axes[0, -1].legend(frameon=False)
    return figure


def _rows(cases: Iterable[Case]) -> list[tuple[Scale, float]]:
    """Return what stands below each other: each scale with its shares of stragglers, in order."""
    return list(dict.fromkeys((scale, share) for scale, _, share, _ in cases))


def _cell(ends: Mapping[str, Ends], case: Case) -> str:
    if case not in ends[LOSS]:
        return ""
    accuracies = [100 * value for value in ends[ACCURACY][case]]
    return f"{interval(ends[LOSS][case]).text(2)}, {interval(accuracies).text(0)}"


def _end(curve: Curve, metric: str, size: Size) -> float:
    return float(np.mean(curve.metrics[metric][-size.averaged :]))


def _size(scale: Scale, *, quick: bool) -> Size:
    return QUICK if quick else SIZES[scale]


def _claims(losses: Ends, accuracies: Ends) -> Iterator[Claim]:
    for data in UNLIKE:
        for larger, smaller in _ORDER:
            yield _claim(
                f"Synthetic {data}, 90% stragglers: {smaller} ends at a lower loss than {larger}",
                losses["large", data, HIGHEST, larger],
                losses["large", data, HIGHEST, smaller],
            )
    yield _claim(
        "Synthetic IID, no stragglers: mu=1 ends at a higher loss than mu=0",
        losses["small", "IID", 0.0, "mu=1"],
        losses["small", "IID", 0.0, "mu=0"],
    )
    better, worse = (_mean_accuracy(accuracies, way) for way in _BEST_AND_WORST)
    gain = difference(better, worse)
    yield Claim(
        PAPER,
        "90% stragglers, sets that are not IID: accuracy of mu=1 over FedAvg",
        "22 points (five sets)",
        gain,
        f"{gain.text()} points",
        beyond=0.0,
    )


def _mean_accuracy(accuracies: Ends, way: Way) -> list[float]:
    """Return the mean over the sets that are not IID at 90% stragglers, in percent; one per draw of data."""
    own = [accuracies["large", data, HIGHEST, way] for data in UNLIKE]
    return [100 * mean(values) for values in zip(*own, strict=True)]


def _claim(says: str, larger: Sequence[float], smaller: Sequence[float]) -> Claim:
    ours = difference(larger, smaller)
    return Claim(PAPER, says, "curves", ours, f"by {ours.text(2)}", beyond=0.0)


def _undropped(way: Way) -> Way:
    return "mu=0" if way == "FedAvg" else way


@cache
def _synthetic(data: str, samples: int, seed: int) -> tuple[Task, Partitioner]:
    """Draw a set; it is tested on what it is trained on, as the paper's loss is."""
    spread = SETS[data]
    alpha, beta = spread if spread is not None else (0.0, 0.0)
    made = make_synthetic(
        alpha, beta, num_workers=WORKERS, iid=spread is None, max_samples=samples, seed=seed
    )
    return Task(made.dataset, made.dataset), made.partition
