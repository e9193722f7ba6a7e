"""What every partitioner promises, whatever the data: tested on all of them at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedlightning.data.partition import (
    IID,
    ClassesPerWorker,
    Dirichlet,
    Explicit,
    LogNormal,
    Natural,
    Partitioner,
    PowerLaw,
    Shards,
    TwoShards,
)

alphas = st.floats(min_value=5e-324, max_value=1e308)
label_lists = st.lists(st.integers(-3, 6), min_size=1, max_size=120)
partitioners = st.one_of(
    st.just(IID),
    st.builds(lambda a: lambda labels: Dirichlet(a, labels=labels), alphas),
    st.builds(lambda a: lambda labels: Dirichlet(a, balanced=True, labels=labels), alphas),
    st.builds(lambda k: lambda labels: Shards(k, labels=labels), st.integers(1, 3)),
    st.just(lambda labels: TwoShards(labels=labels)),
    st.builds(lambda k: lambda labels: ClassesPerWorker(k, labels=labels), st.integers(1, 4)),
    st.builds(lambda x: lambda labels: PowerLaw(x), st.floats(0, 50)),
    st.builds(lambda s: lambda labels: LogNormal(s), st.floats(0, 50)),
)


def build(maker: object, labels: np.ndarray) -> Partitioner:
    return IID() if maker is IID else maker(labels)  # type: ignore[operator]  # hypothesis loses the type


@given(maker=partitioners, labels=label_lists, num_workers=st.integers(1, 12), seed=st.integers(0, 2**64))
def test_every_sample_at_exactly_one_worker_and_nobody_empty(
    maker: object, labels: list[int], num_workers: int, seed: int
) -> None:
    partitioner = build(maker, np.array(labels))
    assume(num_workers <= len(labels))
    if isinstance(partitioner, Shards | ClassesPerWorker):
        assume(_is_possible(partitioner, labels, num_workers))
    partition = partitioner.split(labels, num_workers, seed)

    assert len(partition) == num_workers
    assert sorted(np.concatenate(partition.indices).tolist()) == list(range(len(labels)))
    for part in partition.indices:
        assert len(part) > 0
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


def _is_possible(partitioner: Partitioner, labels: list[int], num_workers: int) -> bool:
    if isinstance(partitioner, Shards):
        return num_workers * partitioner.per_worker <= len(labels)
    assert isinstance(partitioner, ClassesPerWorker)
    _, sizes = np.unique(labels, return_counts=True)
    k = partitioner.k
    return k <= len(sizes) <= k * num_workers and sizes.min() >= -(-k * num_workers // len(sizes))


@pytest.mark.parametrize("alpha", [5e-324, 1e-200, 1e-100, 1e100, 1e308])
@pytest.mark.parametrize("balanced", [False, True])
def test_dirichlet_at_the_ends_of_floating_point(alpha: float, balanced: bool) -> None:
    labels = np.array([0] * 30 + [1] * 10 + [2])
    assert sum(Dirichlet(alpha, balanced=balanced, labels=labels).split(labels, 7).sizes) == 41


ALL = [
    IID(),
    Dirichlet(0.3, labels=np.arange(120) % 5),
    Dirichlet(0.3, balanced=True, labels=np.arange(120) % 5),
    Shards(3, labels=np.arange(120) % 5),
    ClassesPerWorker(2, labels=np.arange(120) % 5),
    PowerLaw(1.5),
    LogNormal(1.0),
]


@pytest.mark.parametrize("partitioner", ALL, ids=repr)
def test_same_seed_gives_the_same_partition_and_another_seed_another(partitioner: Partitioner) -> None:
    first, again, other = (partitioner.split(range(120), 4, seed) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(first.indices, again.indices, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first.indices, other.indices, strict=True))


@pytest.mark.parametrize("partitioner", [p for p in ALL if not isinstance(p, ClassesPerWorker)], ids=repr)
def test_one_worker_gets_everything_in_order(partitioner: Partitioner) -> None:
    assert np.array_equal(partitioner.split(range(120), 1).indices[0], np.arange(120))


def test_own_seed_wins_over_the_strategys() -> None:
    one, other = (IID(seed=3).split(range(50), 2, seed) for seed in (0, 1))
    assert np.array_equal(one.indices[0], other.indices[0])


def test_global_random_state_is_untouched() -> None:
    before = np.random.get_state(legacy=False)["state"]
    Dirichlet(labels=np.arange(60) % 3).split(range(60), 4)
    after = np.random.get_state(legacy=False)["state"]
    assert after["pos"] == before["pos"]
    assert np.array_equal(after["key"], before["key"])


@pytest.mark.parametrize(
    ("num_workers", "message"),
    [
        (0, "num_workers=0 must be at least 1"),
        (-2, "num_workers=-2 must be at least 1"),
        (11, "num_workers=11 is more than the 10 samples.*at most 10 workers"),
        (None, "num_workers=None.*give a number"),
    ],
)
def test_refuses_impossible_numbers_of_workers(num_workers: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IID().split(range(10), num_workers)


def test_refuses_a_number_of_workers_that_is_no_integer() -> None:
    with pytest.raises(TypeError, match=r"num_workers=2.0 must be an integer"):
        IID().split(range(10), 2.0)  # type: ignore[arg-type]  # what a careless caller would do


def test_refuses_a_number_of_workers_other_than_the_datas() -> None:
    for partitioner in (Natural(["a", "b", "a"]), Explicit({"x": [0], "y": [1, 2]})):
        with pytest.raises(ValueError, match=r"num_workers=3.*finds 2 workers in the data"):
            partitioner.split(range(3), 3)


def test_refuses_a_negative_seed() -> None:
    with pytest.raises(ValueError, match="seed=-1 must be at least 0"):
        IID(seed=-1)
