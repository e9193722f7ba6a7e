"""Weighted cohorts: frequencies by weight, and an average without bias where each draw counts alike."""

from __future__ import annotations

import math

import pytest

from fedlightning.algorithms import Draw, WeightedSampling
from tests.algorithms.sampling.drawing import BOUND, cohorts, deviations, participations, pool_of

SAMPLES = {"w00": 1, "w01": 4, "w02": 15}
ROUNDS = 6000


def test_a_worker_takes_part_unless_no_draw_hits_it() -> None:
    drawn = cohorts(WeightedSampling(), pool_of(3, SAMPLES), 2, ROUNDS)
    counts = participations(drawn)
    for name, samples in SAMPLES.items():
        chance = 1 - (1 - samples / 20) ** 2
        assert deviations(counts[name], ROUNDS, chance) < BOUND
    assert all(sum(cohort.weights or ()) == 2 for cohort in drawn)


def test_the_average_over_draws_has_no_bias() -> None:
    """Scheme I of Li et al. 2020: its expectation is the average over everybody, by samples."""
    values = {"w00": 100.0, "w01": -7.0, "w02": 3.0}
    everybody = sum(SAMPLES[name] * value for name, value in values.items()) / 20
    drawn = cohorts(WeightedSampling(), pool_of(3, SAMPLES), 4, ROUNDS)
    means = [
        sum(weight * values[name] for name, weight in zip(cohort.workers, cohort.weights or (), strict=True))
        / 4
        for cohort in drawn
    ]
    variance = sum(SAMPLES[name] / 20 * (value - everybody) ** 2 for name, value in values.items()) / 4
    assert abs(sum(means) / ROUNDS - everybody) < BOUND * math.sqrt(variance / ROUNDS)
    # Weighting those who were drawn by their samples once more is far off: it is what the docstring warns of.
    twice = [
        sum(SAMPLES[name] * values[name] for name in cohort.workers)
        / sum(SAMPLES[name] for name in cohort.workers)
        for cohort in drawn
    ]
    assert abs(sum(twice) / ROUNDS - everybody) > BOUND * math.sqrt(variance / ROUNDS)


def test_without_replacement_draws_follow_one_another() -> None:
    drawn = cohorts(WeightedSampling(SAMPLES, replace=False), pool_of(3), 2, ROUNDS)
    for pair in (("w00", "w01"), ("w00", "w02"), ("w01", "w02")):
        first, second = (SAMPLES[name] / 20 for name in pair)
        chance = first * second / (1 - first) + second * first / (1 - second)
        assert deviations(sum(c.workers == pair for c in drawn), ROUNDS, chance) < BOUND
    assert {cohort.weights for cohort in drawn} == {(1.0, 1.0)}


def test_given_weights_go_before_samples() -> None:
    drawn = cohorts(WeightedSampling({"w00": 1e6, "w01": 1e-6}), pool_of(2), 1, 50)
    assert {cohort.workers for cohort in drawn} == {("w00",)}


def test_without_a_size_there_are_as_many_draws_as_workers() -> None:
    (cohort,) = cohorts(WeightedSampling(), pool_of(9), None, 1)
    assert sum(cohort.weights or ()) == 9


@pytest.mark.parametrize("weight", [0, -1.0, math.inf, math.nan])
def test_weights_are_positive(weight: float) -> None:
    with pytest.raises(ValueError, match=r"weights\['w00'\]=.* must be a positive finite number"):
        WeightedSampling({"w00": weight})


def test_weights_are_of_all_workers_and_of_nobody_else() -> None:
    with pytest.raises(ValueError, match="weights is empty"):
        WeightedSampling({})
    with pytest.raises(ValueError, match=r"no weight for workers \['w01'\]. Give one for each of the 2"):
        WeightedSampling({"w00": 1}).check(pool_of(2), None)
    with pytest.raises(
        ValueError, match=r"weights names \['eve'\].*Name some of the 2 workers: 'w00', 'w01'"
    ):
        WeightedSampling({"w00": 1, "w01": 1, "eve": 1}).check(pool_of(2), None)


def test_only_repeated_draws_need_an_average() -> None:
    assert WeightedSampling().needs_average
    assert not WeightedSampling(replace=False).needs_average


def test_a_pool_of_one() -> None:
    assert WeightedSampling().draw(Draw(pool_of(1), 3, 0, 0)).weights == (3.0,)
