"""Power of choice against the paper: who is a candidate, who is chosen, and what is measured for it."""

from __future__ import annotations

from itertools import combinations
from math import inf, nan

import pytest

from fedlightning.algorithms import Draw, PowerOfChoice, WeightedSampling
from tests.algorithms.sampling.drawing import BOUND, GivenLosses, cohorts, deviations, participations, pool_of

LOSSES = {f"w{number:02d}": float(number) for number in range(6)}


def test_with_all_as_candidates_the_highest_losses_win() -> None:
    losses = GivenLosses(LOSSES)
    drawn = cohorts(PowerOfChoice(6), pool_of(6), 2, 20, losses=losses)
    assert {cohort.workers for cohort in drawn} == {("w04", "w05")}
    assert drawn[0].weights == (1.0, 1.0), "they count alike"
    assert sorted(losses.asked[0][0]) == list(LOSSES)
    assert losses.asked[0][1] is None, "all of their data"


def test_the_chances_are_those_of_candidates_drawn_at_random() -> None:
    """One of d among K equal workers is chosen with C(rank, d-1) / C(K, d): its rank among all counts."""
    rounds = 4000
    drawn = cohorts(PowerOfChoice(3), pool_of(6), 1, rounds, losses=GivenLosses(LOSSES))
    sets = list(combinations(sorted(LOSSES), 3))
    counts = participations(drawn)
    for name in LOSSES:
        chance = sum(max(chosen) == name for chosen in sets) / len(sets)
        assert deviations(counts[name], rounds, chance) < BOUND


def test_with_as_many_candidates_as_take_part_it_is_weighted_sampling() -> None:
    pool = pool_of(6, {name: 1 + int(loss) ** 2 for name, loss in LOSSES.items()})
    biased = cohorts(PowerOfChoice(2), pool, 2, 50, losses=GivenLosses(LOSSES))
    assert biased == cohorts(WeightedSampling(replace=False), pool, 2, 50)


def test_candidates_are_drawn_by_samples() -> None:
    pool = pool_of(3, {"w00": 1, "w01": 1, "w02": 8})
    counts = participations(cohorts(PowerOfChoice(1), pool, 1, 4000, losses=GivenLosses(LOSSES)))
    assert deviations(counts["w02"], 4000, 0.8) < BOUND


def test_only_candidates_are_evaluated_on_as_many_batches_as_asked_for() -> None:
    losses = GivenLosses(LOSSES)
    cohort = PowerOfChoice(4, batches=2).draw(Draw(pool_of(6), 2, 0, 0, losses))
    ((candidates, batches),) = losses.asked
    assert (len(candidates), batches) == (4, 2)
    assert cohort.workers == tuple(sorted(sorted(candidates)[-2:]))


def test_reported_losses_are_asked_of_nobody_and_infinite_for_strangers() -> None:
    losses = GivenLosses(reported={"w00": 0.3, "w01": 0.2, "w02": 0.1})
    sampling = PowerOfChoice(4, "reported")
    assert (
        cohorts(sampling, pool_of(4), 2, 9, losses=losses)
        == [cohorts(sampling, pool_of(4), 2, 1, losses=losses)[0]] * 9
    )
    assert cohorts(sampling, pool_of(4), 2, 1, losses=losses)[0].workers == ("w00", "w03")
    assert losses.asked == []
    assert sampling.evaluates is False


def test_of_equal_losses_none_is_favoured() -> None:
    drawn = cohorts(PowerOfChoice(6, "reported"), pool_of(6), 1, 3000, losses=GivenLosses())
    assert all(deviations(count, 3000, 1 / 6) < BOUND for count in participations(drawn).values())


def test_a_model_that_gives_no_number_does_worst() -> None:
    losses = GivenLosses({"w00": nan, "w01": 1e9, "w02": inf, "w03": 0.0})
    assert PowerOfChoice(4).draw(Draw(pool_of(4), 2, 0, 0, losses)).workers == ("w00", "w02")


def test_candidates_that_could_not_be_evaluated_are_not_chosen() -> None:
    losses = GivenLosses({"w01": 1.0, "w02": 2.0})
    assert PowerOfChoice(4).draw(Draw(pool_of(4), 3, 0, 0, losses)).workers == ("w01", "w02")


def test_before_there_is_a_global_model_there_is_nothing_to_evaluate() -> None:
    with pytest.raises(RuntimeError, match="the loss of 2 workers is asked for"):
        PowerOfChoice(2).draw(Draw(pool_of(4), 1, 0, 0))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"candidates": 0}, "candidates=0 must be at least 1"),
        ({"candidates": 3, "losses": "last"}, "'evaluated' or 'reported', got 'last'"),
        ({"candidates": 3, "batches": 0}, "batches=0 must be at least 1"),
        ({"candidates": 3, "losses": "reported", "batches": 1}, "evaluates nothing. Leave batches out"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        PowerOfChoice(**settings)


@pytest.mark.parametrize("size", [None, 4])
def test_the_cohort_is_part_of_the_candidates(size: int | None) -> None:
    with pytest.raises(ValueError, match="Give a cohort_size between 1 and 3"):
        PowerOfChoice(3).check_size(size)


def test_there_are_as_many_workers_as_candidates() -> None:
    with pytest.raises(ValueError, match="candidates=9 is more than the 4 workers"):
        PowerOfChoice(9).check(pool_of(4), 2)
