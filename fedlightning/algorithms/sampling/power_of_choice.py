"""Power of choice: of some candidates, those take part at whom the global model does worst."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isnan
from typing import Literal, get_args

from typing_extensions import override

from fedlightning.algorithms.sampling.base import Cohort, Draw, Pool, Sampling
from fedlightning.algorithms.sampling.weighted import shares_of
from fedlightning.data.checks import check_count

LossSource = Literal["evaluated", "reported"]


@dataclass(frozen=True)
class PowerOfChoice(Sampling):
    """Choose the ``cohort_size`` candidates with the highest loss (Cho, Wang and Joshi 2022, section 3.1).

    "Towards Understanding Biased Client Selection in Federated Learning", AISTATS 2022. Each round:

    1. ``candidates`` workers are drawn without replacement, with chances in proportion to their samples.
    2. Their local loss of the current global model is estimated, in one of three ways:

       - ``losses="evaluated"``: on all of their data (pow-d). The model travels to every candidate, and what
         ``training_step`` returns is averaged there, in evaluation mode and without gradients.
       - ``losses="evaluated", batches=n``: on n batches, drawn at random anew (cpow-d).
       - ``losses="reported"``: it is the mean training loss of the worker's last visit, which has been sent
         anyway; for a worker that was never visited, it is infinite (rpow-d).
    3. Those with the highest loss take part, and count alike in the average, as in the paper. Of equal
       losses, the candidate that was drawn earlier takes part.

    The choice is biased: faster at first, and possibly ending elsewhere. The larger ``candidates``, the
    stronger the bias; with as many as ``cohort_size`` there is none, beyond that of the draw.

    Args:
        candidates: How many are drawn, at least ``cohort_size``.
        losses: Where their losses are from.
        batches: Batches to evaluate on; ``None`` for all.

    Raises:
        ValueError: There are fewer than 1 candidates or batches, or batches but nothing to evaluate.

    Example:
        >>> class LastRound:
        ...     reported = {"alice": 0.2, "bob": 0.9}
        >>> pool = Pool(["alice", "bob"], samples={"alice": 10, "bob": 10})
        >>> chosen = PowerOfChoice(candidates=2, losses="reported")
        >>> chosen.draw(Draw(pool, size=1, seed=0, round=1, losses=LastRound())).workers
        ('bob',)
    """

    candidates: int
    losses: LossSource = "evaluated"
    batches: int | None = None

    def __post_init__(self) -> None:
        check_count("candidates", self.candidates)
        if self.losses not in get_args(LossSource):
            raise ValueError(f"losses must be 'evaluated' or 'reported', got {self.losses!r}.")
        if self.batches is not None:
            check_count("batches", self.batches)
            if self.losses == "reported":
                raise ValueError(
                    f"batches={self.batches} is given, but losses='reported' evaluates nothing. Leave "
                    "batches out, or use losses='evaluated'."
                )

    @property
    @override
    def needs_average(self) -> bool:
        return True

    @property
    @override
    def evaluates(self) -> bool:
        return self.losses == "evaluated"

    @override
    def check_size(self, size: int | None) -> None:
        if size is None or size > self.candidates:
            raise ValueError(
                f"PowerOfChoice(candidates={self.candidates}) with cohort_size={size}: of the candidates, "
                f"cohort_size take part. Give a cohort_size between 1 and {self.candidates}."
            )

    @override
    def check(self, pool: Pool, size: int | None) -> None:
        super().check(pool, size)
        if self.candidates > len(pool.workers):
            raise ValueError(
                f"candidates={self.candidates} is more than the {len(pool.workers)} workers that there are. "
                f"Use at most {len(pool.workers)}."
            )

    @override
    def draw(self, draw: Draw) -> Cohort:
        names = draw.workers
        count = min(self.candidates, len(names))
        drawn = draw.generator().choice(len(names), size=count, replace=False, p=shares_of(draw.pool))
        candidates = [names[position] for position in drawn]
        losses: Mapping[str, float]
        if self.losses == "evaluated":
            losses = draw.losses.evaluate(candidates, batches=self.batches)
        else:
            reported = draw.losses.reported
            losses = {name: reported.get(name, inf) for name in candidates}
        chosen = with_highest_loss(losses, draw.count)
        return Cohort(chosen, (1.0,) * len(chosen))


def with_highest_loss(losses: Mapping[str, float], count: int) -> tuple[str, ...]:
    """Return the names with the highest losses, sorted.

    Args:
        losses: Loss by name; of equal ones, the earlier goes first. What is not a number counts as infinite:
            nowhere does the model do worse.
        count: How many.

    Example:
        >>> with_highest_loss({"carol": 0.5, "bob": 2.0, "alice": 0.5}, 2)
        ('bob', 'carol')
    """
    by_loss = sorted(losses, key=lambda name: -inf if isnan(losses[name]) else -losses[name])
    return tuple(sorted(by_loss[:count]))
