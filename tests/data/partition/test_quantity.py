from __future__ import annotations

import math

import numpy as np
import pytest

from fedlightning.data.partition import LogNormal, PowerLaw


def test_power_law_sizes_by_hand() -> None:
    # 4 to everybody first, then 1188 as 1 : 1/2 : 1/3 : 1/6 of Zipf's law over three workers plus rounding.
    assert PowerLaw(1.0, min_samples=4).split(range(1100 + 12), 3).sizes == (604, 304, 204)


def test_power_law_of_zero_is_even() -> None:
    assert PowerLaw(0.0).split(range(100), 4).sizes == (25, 25, 25, 25)


def test_log_normal_sizes_have_the_given_spread() -> None:
    logs = [np.log(LogNormal(1.0).split(range(100_000), 40, seed).sizes) for seed in range(25)]
    # Standard deviation within a draw, so that the common factor of the total cancels out.
    assert np.sqrt(np.mean([log.var(ddof=1) for log in logs])) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_refuses_values_that_are_no_spread(value: float) -> None:
    with pytest.raises(ValueError, match=r"exponent=.*non-negative finite"):
        PowerLaw(value)
    with pytest.raises(ValueError, match=r"sigma=.*non-negative finite"):
        LogNormal(value)


def test_refuses_a_minimum_that_the_data_cannot_give() -> None:
    with pytest.raises(ValueError, match="min_samples=30 for each of 4 workers needs 120 samples, got 100"):
        LogNormal(1.0, min_samples=30).split(range(100), 4)
