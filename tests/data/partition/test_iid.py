from __future__ import annotations

import numpy as np

from fedlightning.data.partition import IID


def test_sizes_differ_by_at_most_one() -> None:
    assert IID().split(range(11), 4).sizes == (3, 3, 3, 2)


def test_samples_are_spread_without_regard_to_their_order() -> None:
    # Mean of 500 of 1000 numbers without replacement: standard deviation is 9.1.
    means = [IID().split(range(1000), 2, seed).indices[0].mean() for seed in range(50)]
    assert abs(np.mean(means) - 499.5) < 5 * 9.1 / np.sqrt(50)
    assert 6 < np.std(means) < 13
