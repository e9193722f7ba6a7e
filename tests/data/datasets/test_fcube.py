from __future__ import annotations

import pytest
import torch

from fedlightning.data.datasets import make_fcube


def test_each_worker_sees_two_opposite_eighths_and_both_labels() -> None:
    data = make_fcube(4000)
    points, labels = data.dataset.tensors
    eighths: list[tuple[int, ...]] = []
    for part in data.partition.split(data.dataset).indices:
        rows = torch.from_numpy(part)
        signs = {tuple(row) for row in points[rows].sign().int().tolist()}
        first, second = signs
        assert first == tuple(-sign for sign in second)
        eighths.extend(signs)
        assert torch.bincount(labels[rows]).tolist() == [500, 500]
    assert len(set(eighths)) == 8


def test_label_is_the_side_of_the_first_plane() -> None:
    points, labels = make_fcube(200).dataset.tensors
    assert torch.equal(labels, (points[:, 0] < 0).long())


def test_points_are_uniform() -> None:
    points = make_fcube(8000).dataset.tensors[0]
    assert points.abs().max() <= 1
    assert torch.allclose(points.abs().mean(dim=0), torch.tensor(0.5), atol=0.02)
    assert torch.allclose(points.abs().var(dim=0), torch.tensor(1 / 12), atol=0.005)


def test_seed_decides() -> None:
    assert torch.equal(make_fcube(8, seed=1).dataset.tensors[0], make_fcube(8, seed=1).dataset.tensors[0])
    assert not torch.equal(make_fcube(8, seed=1).dataset.tensors[0], make_fcube(8, seed=2).dataset.tensors[0])


def test_refuses_fewer_points_than_eighths() -> None:
    with pytest.raises(ValueError, match="num_samples=7 must be at least 8"):
        make_fcube(7)
