"""Robust aggregation: each rule against each attack, with a fifth of the workers bad.

No single paper has this table; each rule and each attack has its own, named with the claims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from matplotlib.figure import Figure
from torch.utils.data import TensorDataset
from typing_extensions import override

from benchmarks.published.federation import ACCURACY, FOOLED, Classifier, Curve, Task, fit, network
from benchmarks.published.intervals import Interval, interval
from benchmarks.published.study import Claim, Effort, Job, Measure, Report, Table, difference
from fedlightning.algorithms import (
    AggregationRule,
    Bulyan,
    CenteredClipping,
    FLTrust,
    GeometricMedian,
    Krum,
    Median,
    NormBounded,
    TrimmedMean,
)
from fedlightning.algorithms.attacks import (
    ALIE,
    Attack,
    BackdoorPatch,
    BadWorkers,
    Gaussian,
    InnerProduct,
    LabelFlip,
    Replacement,
    SignFlip,
)
from fedlightning.data.datasets import load_digits

WORKERS = 15
BAD = 3
SHARE = BAD / WORKERS
BACKDOOR = BackdoorPatch(target=0, size=2)
# About the median length of a good worker's update in the first rounds.
LENGTH = 0.75

MEAN = "mean"
RULES: dict[str, AggregationRule | None] = {
    MEAN: None,
    "median": Median(),
    "trimmed mean": TrimmedMean(SHARE),
    "Krum": Krum(BAD),
    "multi-Krum": Krum(BAD, selected=WORKERS - BAD - 2),
    "Bulyan": Bulyan(BAD),
    "geometric median": GeometricMedian(),
    "norm bounding": NormBounded(LENGTH),
    "centred clipping": CenteredClipping(LENGTH),
    "FLTrust": FLTrust(),
}
# What the server has of its own, for a rule that trusts by it; as many as in the paper.
ROOT_SAMPLES = 100
NONE = "none"
ATTACKS: dict[str, Attack | None] = {
    NONE: None,
    "label flip": LabelFlip(classes=10),
    "sign flip": SignFlip(scale=4.0),
    "Gaussian": Gaussian(std=1.0),
    "ALIE": ALIE(z=1.5),
    "inner product": InnerProduct(epsilon=2.0),
    "back door": BACKDOOR,
    "replacement": Replacement(scale=WORKERS / BAD, trained_on=BACKDOOR),
}
Case: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class Size:
    """Say how large the runs are.

    Args:
        rounds: So many, with all workers in each.
        train: Images at all workers.
        hidden: Units of the hidden layer.
        lr: Learning rate of local steps.
        batch_size: Images of each.
    """

    rounds: int
    train: int
    hidden: int
    lr: float
    batch_size: int


FULL = Size(rounds=12, train=1500, hidden=32, lr=0.5, batch_size=20)
QUICK = Size(rounds=1, train=30, hidden=4, lr=0.5, batch_size=2)


@dataclass(frozen=True)
class Run(Job):
    """Train with bad workers among the good, and test at the end.

    Args:
        rule: A name in `RULES`.
        attack: A name in `ATTACKS`.
        seed: Of the draw of data, and of everything else.
        quick: Whether in the smallest form.
    """

    rule: str
    attack: str
    seed: int
    quick: bool = False

    @override
    def run(self) -> Curve:
        size = QUICK if self.quick else FULL
        rule, attack = RULES[self.rule], ATTACKS[self.attack]
        return fit(
            _digits(size.train, self.seed),
            Classifier(network(64, size.hidden, 10, self.seed), size.lr, BACKDOOR),
            rounds=size.rounds,
            every=size.rounds,
            batch_size=size.batch_size,
            seed=self.seed,
            workers=WORKERS,
            local_epochs=1,
            aggregation=rule,
            root_data=min(ROOT_SAMPLES, size.train) if rule is not None and rule.needs_root else None,
            bad_workers=None if attack is None else BadWorkers(attack, share=SHARE),
        )


@dataclass(frozen=True)
class Outcomes:
    """Hold how every rule did against every attack.

    Args:
        accuracies: By rule and attack, one per draw of data.
        fooled: Share of images of other classes that the patch turns into its own, likewise.
    """

    accuracies: Mapping[Case, list[float]]
    fooled: Mapping[Case, list[float]]

    def gain(self, rule: str, attack: str) -> Interval:
        """Return by how much a rule is more accurate than the mean, under an attack; in points."""
        return _points(self.accuracies[rule, attack], self.accuracies[MEAN, attack])

    def loss(self, rule: str, attack: str) -> Interval:
        """Return how much an attack takes from a rule's accuracy; in points."""
        return _points(self.accuracies[rule, NONE], self.accuracies[rule, attack])

    def guard(self, rule: str, attack: str) -> Interval:
        """Return by how much a rule lowers the success of a back door beside the mean; in points."""
        return _points(self.fooled[MEAN, attack], self.fooled[rule, attack])


def study(measure: Measure, effort: Effort) -> Report:
    """Run every rule against every attack."""
    jobs = {
        (rule, attack): [Run(rule, attack, seed, effort.quick) for seed in effort.seeds]
        for rule in RULES
        for attack in ATTACKS
    }
    curves = measure([job for own in zip(*jobs.values(), strict=True) for job in own])
    outcomes = Outcomes(
        {case: [curves[job].last(ACCURACY) for job in own] for case, own in jobs.items()},
        {case: [curves[job].last(FOOLED) for job in own] for case, own in jobs.items()},
    )
    values = Table(
        ("rule", "attack", "seed", "accuracy", "back door"),
        [
            (job.rule, job.attack, str(job.seed), *(f"{curves[job].last(m):.4f}" for m in (ACCURACY, FOOLED)))
            for own in jobs.values()
            for job in own
        ],
    )
    return Report(list(_claims(outcomes)), _details(outcomes), values, draw(outcomes))


def draw(outcomes: Outcomes) -> Figure:
    """Draw accuracy and the back door's success as two tables of shades."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    pictures = {
        "test accuracy": (outcomes.accuracies, "viridis"),
        "back door's success": (outcomes.fooled, "viridis_r"),
    }
    for axis, (title, (values, colors)) in zip(figure.subplots(1, 2), pictures.items(), strict=True):
        means = np.array([[np.mean(values[rule, attack]) for attack in ATTACKS] for rule in RULES])
        axis.imshow(means, vmin=0, vmax=1, cmap=colors, aspect="auto")
        axis.set_xticks(range(len(ATTACKS)), list(ATTACKS), rotation=40, ha="right")
        axis.set_yticks(range(len(RULES)), list(RULES))
        axis.set_title(title)
        for (row, column), value in np.ndenumerate(means):
            bright = (value > 0.5) == (colors == "viridis")
            color = "black" if bright else "white"
            axis.text(column, row, f"{value:.0%}", ha="center", va="center", color=color, fontsize=8)
    return figure


def _details(outcomes: Outcomes) -> Table:
    """Return accuracies in percent; and, of the two attacks with one, the back door's success."""
    doors = ("back door", "replacement")
    header = ("rule", *ATTACKS, *(f"{attack}: success" for attack in doors))
    rows = [
        (
            rule,
            *(_percent(outcomes.accuracies[rule, attack]) for attack in ATTACKS),
            *(_percent(outcomes.fooled[rule, attack]) for attack in doors),
        )
        for rule in RULES
    ]
    return Table(header, rows)


def _claims(outcomes: Outcomes) -> Sequence[Claim]:
    """Return what the papers say of their rules and attacks; figures are of other data, so none is beside."""
    withstands = [
        ("Blanchard et al. 2017", "Krum", "Gaussian"),
        ("Blanchard et al. 2017", "multi-Krum", "Gaussian"),
        ("Yin et al. 2018", "median", "label flip"),
        ("Yin et al. 2018", "trimmed mean", "label flip"),
        ("El Mhamdi et al. 2018", "Bulyan", "Gaussian"),
        ("Pillutla et al. 2022", "geometric median", "Gaussian"),
        ("Karimireddy et al. 2021", "centred clipping", "inner product"),
        ("Li et al. 2019", "median", "sign flip"),
        ("Cao et al. 2021", "FLTrust", "sign flip"),
        ("Cao et al. 2021", "FLTrust", "label flip"),
    ]
    defeated = [("Baruch et al. 2019", "ALIE", rule) for rule in ("trimmed mean", "Krum", "Bulyan")] + [
        ("Xie et al. 2020", "inner product", rule) for rule in ("median", "Krum")
    ]
    return [
        *(
            _points_claim(
                paper, f"{rule} withstands {attack} better than the mean", outcomes.gain(rule, attack)
            )
            for paper, rule, attack in withstands
        ),
        *(
            _points_claim(paper, f"{attack} gets past {rule}: accuracy lost", outcomes.loss(rule, attack))
            for paper, attack, rule in defeated
        ),
        _points_claim(
            "Sun et al. 2019",
            "norm bounding lowers the success of a back door that is scaled up",
            outcomes.guard("norm bounding", "replacement"),
        ),
    ]


def _points_claim(paper: str, says: str, ours: Interval) -> Claim:
    return Claim(paper, says, "shown on other data", ours, f"{ours.text()} points", beyond=0.0)


def _points(larger: Sequence[float], smaller: Sequence[float]) -> Interval:
    return difference([100 * value for value in larger], [100 * value for value in smaller])


def _percent(values: Sequence[float]) -> str:
    return interval([100 * value for value in values]).text(0)


@cache
def _digits(train: int, seed: int) -> Task:
    parts = load_digits(seed=seed)
    return Task(TensorDataset(*parts.train[:train]), parts.val)
