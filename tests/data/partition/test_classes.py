from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.data.partition import ClassesPerWorker
from fedlightning.data.partition.classes import choose_classes


@given(st.integers(1, 12), st.integers(1, 15), st.data(), st.integers(0, 99))
def test_choice_is_k_per_worker_and_even_over_classes(
    num_classes: int, num_workers: int, data: st.DataObject, seed: int
) -> None:
    k = data.draw(st.integers(1, num_classes))
    held = choose_classes(num_classes, num_workers, k, np.random.default_rng(seed))
    assert (held.sum(axis=1) == k).all()
    assert held.sum(axis=0).max() - held.sum(axis=0).min() <= 1


@pytest.mark.parametrize("k", [1, 2, 5, 10])
def test_each_worker_holds_exactly_k_classes_evenly_divided(k: int) -> None:
    labels = np.arange(1000) % 10
    partition = ClassesPerWorker(k, labels=labels).split(labels, 10)
    assert [len(set(labels[part].tolist())) for part in partition.indices] == [k] * 10
    assert partition.sizes == (100,) * 10


def test_refuses_more_classes_than_there_are() -> None:
    with pytest.raises(ValueError, match=r"k=4 is more than the 3 classes. Use k of at most 3"):
        ClassesPerWorker(4, labels=np.arange(30) % 3).split(range(30), 5)


def test_refuses_to_leave_classes_over() -> None:
    with pytest.raises(
        ValueError, match=r"k=2 classes at each of 3 workers cannot hold 10 classes.*at least 4"
    ):
        ClassesPerWorker(2, labels=np.arange(100) % 10).split(range(100), 3)


def test_refuses_a_class_with_fewer_samples_than_holders() -> None:
    with pytest.raises(
        ValueError, match="k=1 with 4 workers makes 2 holders of class 1, which has 1 samples"
    ):
        ClassesPerWorker(1, labels=[0, 0, 0, 0, 1]).split(range(5), 4)
