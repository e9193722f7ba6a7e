"""What every way of drawing cohorts promises, and what it may know. The ways live beside, one idea each.

A draw is a pure function of what it is given, so that a resumed run draws the same cohorts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Protocol

import numpy as np

from fedlightning.algorithms.sampling.identity import identity_of
from fedlightning.data.checks import check_count
from fedlightning.workers.random import derive_seed


class Losses(Protocol):
    """What is known of the global model's loss at workers, or can be found out."""

    @property
    def reported(self) -> Mapping[str, float]:
        """The mean training loss of each worker's last visit; empty for whom was never visited."""

    def evaluate(self, workers: Sequence[str], *, batches: int | None) -> Mapping[str, float]:
        """Send the global model to workers and have its training loss measured on their own data.

        Args:
            workers: Names of the workers.
            batches: How many batches to measure on, drawn at random; ``None`` for all of the data.

        Returns:
            The mean loss by worker; those that failed, and may fail, are left out.
        """


class NoLosses:
    """Stand for losses where there are none to know: before a run, or in a sequential one."""

    reported: Mapping[str, float] = {}

    def evaluate(self, workers: Sequence[str], *, batches: int | None) -> Mapping[str, float]:
        """Refuse to."""
        raise RuntimeError(
            f"the loss of {len(workers)} workers is asked for, and there is no global model to measure. "
            "Losses can be evaluated in rounds of FederatedStrategy(update='averaged') only."
        )


def _no_tags(tags: tuple[str, ...]) -> Collection[str]:
    raise ValueError(
        f"tags={list(tags)} are looked for at the workers, and these are virtual ones that hold nothing yet. "
        "Give a mapping such as tags={'worker-0': ['gpu']}, or workers that exist."
    )


@dataclass(frozen=True)
class Pool:
    """Hold the workers that cohorts are drawn from.

    Args:
        workers: Their names, sorted.
        samples: Number of samples by name; may name others, too.
        tagged: Finds the workers that hold an object with all of some tags.
    """

    workers: Sequence[str]
    samples: Mapping[str, int]
    tagged: Callable[[tuple[str, ...]], Collection[str]] = _no_tags


@dataclass(frozen=True)
class Draw:
    """One cohort that is to be drawn.

    Args:
        pool: Whom from.
        size: How many workers are asked for; ``None`` for all.
        seed: Seed of the run.
        round: Number of the round, from 0; in a sequential run, of the pass over the workers.
        losses: What is known of the global model.
    """

    pool: Pool
    size: int | None
    seed: int
    round: int
    losses: Losses = field(default_factory=NoLosses)

    @property
    def workers(self) -> Sequence[str]:
        """Names of the workers, sorted."""
        return self.pool.workers

    @property
    def samples(self) -> Mapping[str, int]:
        """Number of samples of each worker."""
        return self.pool.samples

    @property
    def count(self) -> int:
        """How many workers can be had: at most as many as there are."""
        there = len(self.workers)
        return there if self.size is None else min(self.size, there)

    def generator(self) -> np.random.Generator:
        """Return the source of all random numbers of this draw, at its beginning."""
        return np.random.default_rng(derive_seed(self.seed, "cohort", self.round))

    def among(self, workers: Collection[str]) -> Draw:
        """Return the same draw from some of the workers only."""
        chosen = [name for name in self.workers if name in workers]
        return replace(self, pool=replace(self.pool, workers=chosen))


@dataclass(frozen=True)
class Cohort:
    """Who takes part in a round, and with which weight in the average.

    Args:
        workers: Their names, each once.
        weights: Positive numbers, one per worker; ``None`` to weight by samples.

    Raises:
        ValueError: A name is there twice, or the weights are not one positive number per worker.
    """

    workers: tuple[str, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if len(set(self.workers)) < len(self.workers):
            twice = sorted({name for name in self.workers if self.workers.count(name) > 1})
            raise ValueError(
                f"workers {twice} are in the cohort more than once. Name each once, with a weight."
            )
        if self.weights is None:
            return
        if len(self.weights) != len(self.workers) or not all(isfinite(w) and w > 0 for w in self.weights):
            raise ValueError(
                f"weights must be one positive number for each of {len(self.workers)} workers, got "
                f"{self.weights}. Leave out a worker that is to have no weight."
            )


class Sampling(ABC):
    """Draw the cohort of each round."""

    @abstractmethod
    def draw(self, draw: Draw) -> Cohort:
        """Draw a cohort, as a pure function of what is given.

        Args:
            draw: Whom from, how many, for which round.

        Returns:
            The cohort. It may be empty; then the round changes nothing.
        """

    @property
    def keeps_order(self) -> bool:
        """Whether the order of a cohort is meant: a sequential run then visits its workers so."""
        return False

    @property
    def needs_average(self) -> bool:
        """Whether it draws for averaged rounds only: by weights in an average, losses or mere chance."""
        return False

    @property
    def evaluates(self) -> bool:
        """Whether it has the global model's training loss measured at workers."""
        return False

    def check_size(self, size: int | None) -> None:
        """Check the cohort size on its own.

        Args:
            size: The ``cohort_size`` that the user gave, if any.

        Raises:
            ValueError: It does not go together with this way of sampling.
        """
        if size is not None:
            check_count("cohort_size", size)

    def check(self, pool: Pool, size: int | None) -> None:
        """Check what it was told against the workers that there are.

        Args:
            pool: All workers of the run.
            size: The ``cohort_size`` that the user gave, if any.

        Raises:
            ValueError: It was told of others, could never draw anybody, or the size does not go together
                with it.
        """
        self.check_size(size)

    def eligible(self, pool: Pool) -> Sequence[str]:
        """Return whom it may ever draw from a pool, sorted."""
        return pool.workers

    def mean_size(self, pool: Pool, size: int | None) -> float:
        """Return how many workers it draws on average, by which an epoch's rounds are counted."""
        there = len(self.eligible(pool))
        return there if size is None else min(size, there)

    @property
    def identity(self) -> str:
        """What a run must have in common with a checkpoint to go on from it, as text."""
        return identity_of(self)


def check_names(what: str, names: Iterable[str], pool: Pool) -> None:
    """Refuse names that nobody has.

    Args:
        what: The argument that names them, for the message.
        names: The names.
        pool: Who there is.

    Raises:
        ValueError: Some are not there.
    """
    named = set(names)
    if not named:
        return  # a round's price is its cohort's, not that of a set of everybody
    there = set(pool.workers)
    strangers = sorted(named - there)
    if strangers:
        some = ", ".join(map(repr, pool.workers[:5])) + (", ..." if len(pool.workers) > 5 else "")
        raise ValueError(
            f"{what} names {strangers[:5]}, and there are no such workers. Name some of the {len(there)} "
            f"workers: {some}."
        )
