from __future__ import annotations

import numpy as np
import pytest

from fedlightning.data.partition import Shards, TwoShards


def test_the_setting_of_the_paper() -> None:
    # McMahan et al. 2017: 60,000 digits, 200 shards of 300, two to each of 100 workers.
    labels = np.repeat(np.arange(10), 6000)
    partition = TwoShards(labels=labels).split(labels, 100)
    assert set(partition.sizes) == {600}
    classes = [len(set(labels[part].tolist())) for part in partition.indices]
    assert set(classes) <= {1, 2}
    assert classes.count(2) > 70


def test_by_hand() -> None:
    labels = np.array([1, 0, 1, 0])
    parts = Shards(1, labels=labels).split(labels, 2).indices
    assert sorted(part.tolist() for part in parts) == [[0, 2], [1, 3]]


def test_refuses_more_shards_than_samples() -> None:
    with pytest.raises(ValueError, match="per_worker=3 for 4 workers makes 12 shards of 11 samples"):
        Shards(3, labels=np.arange(11)).split(range(11), 4)


def test_refuses_no_shards() -> None:
    with pytest.raises(ValueError, match="per_worker=0 must be at least 1"):
        Shards(0)
