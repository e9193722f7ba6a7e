"""FCUBE: points in a cube, of which each worker sees two opposite eighths: skew of inputs, not of labels."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import TensorDataset

from fedlightning.data.checks import check_count
from fedlightning.data.datasets.grouped import GroupedData
from fedlightning.workers.random import derive_seed

NUM_WORKERS = 4


def make_fcube(num_samples: int = 4000, seed: int = 0) -> GroupedData:
    """Draw points uniformly in ``[-1, 1]^3``, labelled by the sign of the first coordinate, at four workers.

    The planes through the origin cut the cube into eight parts; each worker has two that are opposite to one
    another, so that it sees both labels equally often, but another region than everybody else. A linear model
    separates the labels perfectly.

    Source: Li et al. 2022, "Federated Learning on Non-IID Data Silos: An Experimental Study" (NIID-Bench),
    section IV-B, "synthetic feature imbalance". Drawn here, so without a licence. Trained centrally, a linear
    model reaches 99.7% on 1,000 other points (``benchmarks/central_accuracy.py``).

    Args:
        num_samples: Number of points, at least 8; 4,000 for training and 1,000 for testing in the paper.
        seed: Seed of all draws.

    Returns:
        Points, float32, shape ``(N, 3)``; labels, int64: 1 where the first coordinate is negative; and each
        point's worker.

    Raises:
        ValueError: If there are fewer points than eighths.

    Example:
        >>> data = make_fcube(800)
        >>> data.partition.split(data.dataset).sizes
        (200, 200, 200, 200)
    """
    check_count("num_samples", num_samples, minimum=2 * NUM_WORKERS)
    rng = np.random.default_rng(derive_seed(seed, "fcube"))
    number = np.arange(num_samples)
    worker, label = number % NUM_WORKERS, number // NUM_WORKERS % 2
    # The eighth of a worker with positive first coordinate; the other one is its mirror image.
    signs = np.stack([np.ones(num_samples), 1 - 2 * (worker // 2), 1 - 2 * (worker % 2)], axis=1)
    points = (1 - 2 * label)[:, None] * signs * (1.0 - rng.random((num_samples, 3)))
    names = np.array([f"worker-{position}" for position in range(NUM_WORKERS)])
    dataset = TensorDataset(torch.from_numpy(points).float(), torch.from_numpy(label))
    return GroupedData(dataset, names[worker])
