"""Which schedule draws up the rounds of a federation, and what speaks against it before the first one.

What schedules are, lives in ``algorithms``; when the next plan is asked for, in ``run``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fedlightning.algorithms import (
    AsynchronousSchedule,
    AveragedSchedule,
    Pool,
    Sampling,
    Schedule,
    SequentialSchedule,
    UniformSampling,
)
from fedlightning.algorithms.participation import asked_of
from fedlightning.strategy.federation import Federation
from fedlightning.strategy.settings import FederationSettings, check_buffer, cohort_too_large


def schedule_for(settings: FederationSettings, federation: Federation, seed: int) -> Schedule:
    """Return what draws up the rounds of a fit.

    Args:
        settings: What the user has set.
        federation: The workers that hold its data.
        seed: Of the run.

    Raises:
        ValueError: There are too few workers for what is set, or others than those that it names.
    """
    cohort_size, pool = settings.cohort_size, federation.pool
    sampling = settings.sampling or UniformSampling()
    _check(settings, sampling, federation)
    return _kind(settings, pool, sampling)(
        federation.batches,
        settings.work,
        cohort_size=cohort_size,
        rounds_per_epoch=settings.rounds_per_epoch,
        seed=seed,
        sampling=sampling,
        pool=pool,
        participation=settings.participation or (),
    )


def _check(settings: FederationSettings, sampling: Sampling, federation: Federation) -> None:
    cohort_size, workers, pool = settings.cohort_size, len(federation.members), federation.pool
    if cohort_size is not None and cohort_size > workers:
        raise ValueError(cohort_too_large(cohort_size, workers))
    sampling.check(pool, asked_of(settings.participation or (), cohort_size, workers))
    if federation.alone and not isinstance(sampling, UniformSampling):
        raise ValueError(
            f"sampling={sampling!r}, but there is only one worker to draw. Use more workers, or leave "
            "sampling out."
        )
    for part in settings.participation or ():
        part.check(pool)
    if settings.aggregation is not None:
        settings.aggregation.check_cohort(_concurrency(settings, pool, sampling))


def _kind(settings: FederationSettings, pool: Pool, sampling: Sampling) -> Callable[..., Schedule]:
    if settings.asynchronous is not None:
        check_buffer(settings.asynchronous, _concurrency(settings, pool, sampling))
        return partial(AsynchronousSchedule, asynchronous=settings.asynchronous)
    return AveragedSchedule if settings.update == "averaged" else SequentialSchedule


def _concurrency(settings: FederationSettings, pool: Pool, sampling: Sampling) -> int:
    """Return how many workers can be at work at a time."""
    eligible = len(sampling.eligible(pool))
    return min(settings.cohort_size or eligible, eligible)
