"""Rules against bad workers: worked by hand, held against other implementations, and attacked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import trim_mean
from torch import Tensor

from fedlightning.algorithms import (
    AggregationRule,
    Bulyan,
    CenteredClipping,
    GeometricMedian,
    Krum,
    Median,
    NormBounded,
    RuleCombiner,
    TrimmedMean,
    Update,
    UpdateMean,
)
from fedlightning.algorithms.robust import krum_scores

RULES: list[AggregationRule] = [
    Median(),
    TrimmedMean(0.2),
    Krum(bad=2),
    Krum(bad=2, selected=4),
    Bulyan(bad=2),
    GeometricMedian(50),
    CenteredClipping(radius=2.0, iterations=5),
]
HONEST = 12
BAD = 2


def combined(rule: AggregationRule, rows: Any, weights: Any = None, start: Any = None) -> Tensor:
    """Combine rows of numbers, of equal weight and from zero unless given."""
    updates = torch.as_tensor(rows, dtype=torch.float64)
    shares = torch.ones(len(updates)) if weights is None else torch.as_tensor(weights)
    return rule.combine(updates, shares, torch.zeros(updates.shape[1]) if start is None else start)


matrices = st.integers(1, 9).flatmap(
    lambda rows: st.lists(
        st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=rows, max_size=rows
    )
)


@given(matrices)
def test_the_median_is_numpys(rows: list[list[float]]) -> None:
    np.testing.assert_allclose(combined(Median(), rows), np.median(rows, axis=0))


@given(matrices, st.floats(0, 0.49))
def test_the_trimmed_mean_is_scipys(rows: list[list[float]], fraction: float) -> None:
    ours = combined(TrimmedMean(fraction), rows)
    np.testing.assert_allclose(ours, trim_mean(np.array(rows), fraction, axis=0), atol=1e-6)


@given(matrices)
def test_what_trims_and_clips_nothing_is_the_weighted_mean(rows: list[list[float]]) -> None:
    weights = torch.arange(1, len(rows) + 1, dtype=torch.float64)
    mean = (torch.tensor(rows, dtype=torch.float64) * weights[:, None]).sum(0) / weights.sum()
    start = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    for rule in (TrimmedMean(0.0), NormBounded(1e12), CenteredClipping(1e12, 3)):
        torch.testing.assert_close(combined(rule, rows, weights, start), mean, atol=1e-3, rtol=1e-9)


@pytest.mark.parametrize("rule", [*RULES, NormBounded(100.0)], ids=str)
def test_among_identical_updates_any_will_do(rule: AggregationRule) -> None:
    row = torch.randn(5, dtype=torch.float64)
    torch.testing.assert_close(combined(rule, row.expand(14, 5), start=row), row)


def test_krum_by_hand() -> None:
    """Of 0, 1, 3, 9, 100 with one bad worker, each has the 2 nearest others: 10, 5, 13, 100, ..."""
    points = torch.tensor([[0.0], [1.0], [3.0], [9.0], [100.0]])
    assert krum_scores(points, bad=1).tolist() == [
        1 + 9,
        1 + 4,
        4 + 9,
        36 + 64,
        91**2 + 97**2,
    ]
    assert combined(Krum(bad=1), points).tolist() == [1.0]
    assert combined(Krum(bad=1, selected=2), points).tolist() == [0.5]


def test_the_geometric_median_is_not_led_by_distance() -> None:
    """On a line it is the median, however far away the last point is."""
    far = combined(GeometricMedian(200, 1e-9), [[0.0], [1.0], [2.0], [3.0], [1e6]])
    assert far.item() == pytest.approx(2.0, abs=1e-3)


def test_steps_are_shortened_from_the_start() -> None:
    rows, start = [[4.0, 5.0], [1.0, 1.0]], torch.tensor([1.0, 1.0], dtype=torch.float64)
    # The first step is (3, 4), of length 5; shortened to 1 it is (0.6, 0.8). The second is none at all.
    expected = [1 + 0.6 / 2, 1 + 0.8 / 2]
    assert combined(NormBounded(1.0), rows, start=start).tolist() == pytest.approx(expected)
    assert combined(CenteredClipping(1.0, 1), rows, start=start).tolist() == pytest.approx(expected)


ATTACKS = {
    "scaled": lambda honest: honest.mean(0) * -100,
    "noise": lambda honest: torch.randn(honest.shape[1], dtype=honest.dtype) * 1000,
    "one coordinate": lambda honest: honest.mean(0) + torch.eye(honest.shape[1])[0] * 1e4,
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_few_bad_workers_cannot_carry_the_rest_away(rule: AggregationRule, attack: str) -> None:
    generator = torch.Generator().manual_seed(0)
    honest = 1 + 0.1 * torch.randn(HONEST, 20, generator=generator, dtype=torch.float64)
    bad = torch.stack([ATTACKS[attack](honest)] * BAD)
    updates = torch.cat([bad, honest])
    centre = honest.mean(0)
    distance = (combined(rule, updates) - centre).norm()
    assert distance < (4.0 if isinstance(rule, CenteredClipping) else 0.7)
    assert (updates.mean(0) - centre).norm() > 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrimmedMean(0.5), r"fraction must be at least 0 and below 0.5, got 0.5"),
        (lambda: Krum(bad=-1), "bad must be a whole number of at least 0, got -1"),
        (lambda: Krum(bad=True), "bad must be a whole number of at least 0, got True"),
        (lambda: Krum(selected=0), "selected must be a whole number of at least 1, got 0"),
        (lambda: Bulyan(bad=-2), "bad must be"),
        (lambda: GeometricMedian(iterations=0), "iterations must be a whole number of at least 1"),
        (lambda: GeometricMedian(smoothing=0), "smoothing must be positive"),
        (lambda: NormBounded(0), "length must be positive, got 0"),
        (lambda: CenteredClipping(-1), "radius must be positive, got -1"),
        (lambda: CenteredClipping(1, 0), "iterations must be a whole number of at least 1"),
        (lambda: Krum(bad=2).check_cohort(6), "needs at least 7 workers in a round, and there are 6"),
        (lambda: Bulyan(bad=2).check_cohort(10), "needs at least 11 workers"),
    ],
)
def test_impossible_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_updates_are_taken_apart_and_put_together_again() -> None:
    updates = [
        Update(
            [torch.full((2, 3), value), torch.full((2,), value, dtype=torch.float64)],
            [value > 1, False],
            [torch.tensor(int(value)), torch.tensor(value > 2), torch.tensor([value])],
        )
        for value in (1.0, 2.0, 900.0)
    ]
    combiner = RuleCombiner(Median(), [torch.zeros(2, 3), torch.zeros(2, dtype=torch.float64)])
    assert combiner.result() is None
    for update in updates:
        combiner.add(update, 1)
    result = combiner.result()
    assert result is not None
    assert torch.equal(result.tensors[0], torch.full((2, 3), 2.0))
    assert result.tensors[1].dtype == torch.float64
    assert list(result.present) == [True, False]
    assert [buffer.tolist() for buffer in result.buffers] == [2, False, [2.0]]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [(TrimmedMean(0.0), 25.75), (TrimmedMean(0.25), 2.5), (Median(), 2.5), (Krum(bad=0), 2.5)],
    ids=str,
)
def test_buffers_follow_a_rule_that_goes_by_each_entry_and_else_the_median(
    rule: AggregationRule, expected: float
) -> None:
    combiner = RuleCombiner(rule, [torch.zeros(1)])
    for value in (1.0, 2.0, 3.0, 97.0):
        combiner.add(Update([torch.zeros(1)], [True], [torch.tensor([value])]), 1)
    result = combiner.result()
    assert result is not None
    assert result.buffers[0].tolist() == [expected]


def test_nothing_trimmed_is_the_mean_of_updates() -> None:
    mean, rule = UpdateMean(), RuleCombiner(TrimmedMean(0.0), [torch.zeros(4)])
    for weight in (1, 2, 5):
        update = Update([torch.randn(4)], [True], [])
        mean.add(update, weight)
        rule.add(update, weight)
    expected, ours = mean.result(), rule.result()
    assert expected is not None
    assert ours is not None
    torch.testing.assert_close(ours.tensors[0], expected.tensors[0])
