"""What all ways of sampling promise: pure draws, of workers that are there, each once."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.algorithms import (
    ChosenBy,
    Cohort,
    Draw,
    FixedOrder,
    OnlineWorkers,
    PoissonSampling,
    Pool,
    PowerOfChoice,
    RoundRobin,
    Sampling,
    TaggedWorkers,
    UniformSampling,
    WeightedSampling,
)
from tests.algorithms.sampling.drawing import GivenLosses

NAMES = [f"w{number:02d}" for number in range(12)]


def every_third(draw: Draw) -> list[str]:
    return list(draw.workers[draw.round % 3 :: 3])


SAMPLINGS: dict[str, Sampling] = {
    "uniform": UniformSampling(),
    "weighted": WeightedSampling(),
    "weighted, replaced": WeightedSampling({name: 1.0 + int(name[1:]) for name in NAMES}),
    "weighted, distinct": WeightedSampling(replace=False),
    "Poisson": PoissonSampling(),
    "Poisson by rate": PoissonSampling(0.2),
    "round robin": RoundRobin(),
    "fixed order": FixedOrder(NAMES[::-2]),
    "pow-d": PowerOfChoice(8),
    "cpow-d": PowerOfChoice(8, batches=1),
    "rpow-d": PowerOfChoice(8, "reported"),
    "online": OnlineWorkers([NAMES[:2], [], NAMES[3:]]),
    "online by function": OnlineWorkers(lambda round: NAMES[round % 5 :], then=PowerOfChoice(8)),
    "tagged": TaggedWorkers("a", {name: ["a", "b"][int(name[1:]) % 2] for name in NAMES}),
    "chosen": ChosenBy(every_third),
}


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@given(
    size=st.one_of(st.none(), st.integers(1, 8)),
    seed=st.integers(-(2**40), 2**64),
    number=st.integers(0, 10**6),
    samples=st.lists(st.integers(1, 1000), min_size=12, max_size=12),
)
def test_a_draw_is_pure_and_of_workers_that_are_there(
    sampling: Sampling, size: int | None, seed: int, number: int, samples: list[int]
) -> None:
    losses = GivenLosses(
        {name: count % 7 for name, count in zip(NAMES, samples, strict=True)}, {NAMES[3]: 0.5}
    )
    pool = Pool(NAMES, dict(zip(NAMES, samples, strict=True)))
    draw = Draw(pool, size, seed, number, losses)
    cohort = sampling.draw(draw)
    assert sampling.draw(draw) == cohort
    assert set(cohort.workers) <= set(sampling.eligible(pool))
    assert len(set(cohort.workers)) == len(cohort.workers)
    if size is not None and not isinstance(sampling, PoissonSampling | ChosenBy):
        assert len(cohort.workers) <= size
    if cohort.weights is not None:
        assert len(cohort.weights) == len(cohort.workers)
        assert min(cohort.weights, default=1) > 0


def size_for(sampling: Sampling) -> int | None:
    return None if sampling in (SAMPLINGS["Poisson by rate"], SAMPLINGS["chosen"]) else 4


@pytest.mark.parametrize("name", [name for name in SAMPLINGS if name != "chosen"])
def test_a_mean_size_is_the_mean_of_sizes(name: str) -> None:
    pool, rounds, sampling = Pool(NAMES, dict.fromkeys(NAMES, 5)), 900, SAMPLINGS[name]
    size = size_for(sampling)
    losses = GivenLosses(dict.fromkeys(NAMES, 1.0))
    sizes = [len(sampling.draw(Draw(pool, size, 0, number, losses)).workers) for number in range(rounds)]
    # A cohort's size lies in [0, 12]: its standard deviation is below 2, that of the mean below 0.07.
    assert sum(sizes) / rounds == pytest.approx(sampling.mean_size(pool, size), abs=0.3)


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_what_was_told_is_checked_against_who_is_there(sampling: Sampling) -> None:
    sampling.check(Pool(NAMES, dict.fromkeys(NAMES, 5)), size_for(sampling))


def test_identities_tell_settings_apart() -> None:
    identities = [sampling.identity for sampling in SAMPLINGS.values()]
    assert len(set(identities)) == len(identities)
    assert UniformSampling().identity == "UniformSampling()"
    assert WeightedSampling({"a": 1.0, "b": 2.0}).identity == WeightedSampling({"b": 2.0, "a": 1.0}).identity
    assert OnlineWorkers([["a"], ["b"]]).identity == OnlineWorkers({1: {"b"}, 0: {"a"}}).identity
    assert OnlineWorkers([["a"], ["b"]]).identity != OnlineWorkers([["b"], ["a"]]).identity
    assert "every_third" in ChosenBy(every_third).identity


def test_settings_travel() -> None:
    for sampling in (WeightedSampling(), OnlineWorkers([["w00"]], then=RoundRobin())):
        assert pickle.loads(pickle.dumps(sampling)).identity == sampling.identity


@pytest.mark.parametrize(
    ("workers", "weights", "match"),
    [
        (("a", "b", "a"), None, r"\['a'\] are in the cohort more than once"),
        (("a", "b"), (1.0,), "one positive number for each of 2 workers"),
        (("a", "b"), (1.0, 0.0), "one positive number"),
        (("a",), (float("nan"),), "one positive number"),
    ],
)
def test_a_cohort_names_each_worker_once(
    workers: tuple[str, ...], weights: tuple[float, ...] | None, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        Cohort(workers, weights)
