from __future__ import annotations

import math

import numpy as np
import pytest

from fedlightning.data.partition import Dirichlet
from fedlightning.data.partition.dirichlet import draw_equal_sizes, split_classes


def shares_of_classes(alpha: float, num_workers: int, num_classes: int, seeds: int) -> np.ndarray:
    """Share of each class that each worker got, over many seeds: shape (seeds * num_classes, num_workers)."""
    labels = np.repeat(np.arange(num_classes), 400)
    rows = []
    for seed in range(seeds):
        parts = split_classes(labels, num_workers, alpha, np.random.default_rng(seed))
        rows.append(
            np.stack([np.bincount(labels[part], minlength=num_classes) / 400 for part in parts], axis=1)
        )
    return np.concatenate(rows)


@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0, 10.0])
def test_shares_have_mean_and_variance_of_the_dirichlet_distribution(alpha: float) -> None:
    workers = 5
    shares = shares_of_classes(alpha, workers, num_classes=20, seeds=100)
    mean = 1 / workers
    variance = mean * (1 - mean) / (workers * alpha + 1)
    assert shares.mean(axis=0) == pytest.approx(mean, abs=5 * math.sqrt(variance / len(shares)))
    assert shares.var(axis=0) == pytest.approx(variance, rel=0.15)
    # Negative covariance of neighbours: -mean^2 / (workers * alpha + 1).
    assert np.cov(shares.T)[0, 1] == pytest.approx(-(mean**2) / (workers * alpha + 1), rel=0.4)


@pytest.mark.parametrize("alpha", [0.5, 5.0])
def test_balanced_workers_mixture_has_the_dirichlet_multinomial_variance(alpha: float) -> None:
    # The first worker draws 40 samples while no class (200 each) can run out.
    labels = np.repeat(np.arange(4), 200)
    draws = [draw_equal_sizes(labels, 20, alpha, np.random.default_rng(seed))[0] for seed in range(1500)]
    counts = np.stack([np.bincount(labels[draw], minlength=4) for draw in draws])
    expected = 40 * 0.25 * 0.75 * (40 + alpha) / (1 + alpha)
    assert counts.mean(axis=0) == pytest.approx(10.0, abs=5 * math.sqrt(expected / len(draws)))
    assert counts.var(axis=0) == pytest.approx(expected, rel=0.15)


def test_balanced_follows_the_populations_shares() -> None:
    labels = np.array([0] * 900 + [1] * 100)
    parts = Dirichlet(1e6, balanced=True, labels=labels).split(labels, 5).indices
    assert [len(part) for part in parts] == [200] * 5
    assert all(abs((labels[part] == 1).mean() - 0.1) < 0.08 for part in parts)


@pytest.mark.parametrize("balanced", [False, True])
def test_tiny_alpha_gives_almost_every_class_to_one_worker_and_large_alpha_to_all(balanced: bool) -> None:
    labels = np.arange(2000) % 10
    few, many = (
        [
            len(set(labels[part].tolist()))
            for part in Dirichlet(a, balanced=balanced, labels=labels).split(labels, 10).indices
        ]
        for a in (1e-3, 1e3)
    )
    assert np.mean(few) <= 2.5
    assert np.mean(many) >= 9.5


@pytest.mark.parametrize("minimum", [1, 7, 20])
def test_minimum_holds_under_extreme_skew(minimum: int) -> None:
    labels = np.zeros(100, dtype=np.int64)
    partition = Dirichlet(1e-6, minimum, labels=labels).split(labels, 5)
    assert min(partition.sizes) == minimum
    assert sum(partition.sizes) == 100


def test_refuses_a_minimum_that_the_data_cannot_give() -> None:
    with pytest.raises(
        ValueError, match=r"min_samples=21 for each of 5 workers needs 105 samples, got 100.*at most 20"
    ):
        Dirichlet(0.3, 21, labels=np.zeros(100, dtype=np.int64)).split(range(100), 5)


@pytest.mark.parametrize("alpha", [0, 0.0, -0.3, math.nan, math.inf])
def test_refuses_alpha_that_is_no_concentration(alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"alpha={alpha} must be a positive finite number.*IID\(\)"):
        Dirichlet(alpha)


def test_refuses_alpha_that_is_no_number() -> None:
    with pytest.raises(TypeError, match=r"alpha='0.3' must be a number, got str"):
        Dirichlet("0.3")  # type: ignore[arg-type]  # what an unquoted config would give


def test_says_how_to_give_labels_that_are_missing() -> None:
    with pytest.raises(
        ValueError, match=r"no labels were found on dataset=range.*Give the partitioner labels="
    ):
        Dirichlet(0.3).split(range(10), 2)
