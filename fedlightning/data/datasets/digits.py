"""Scikit-learn's handwritten digits: 1,797 real images of 8x8 pixels, shipped with the library."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import TensorDataset

from fedlightning.data.checks import check_count
from fedlightning.data.datasets.split import TrainVal, stratified
from fedlightning.workers.random import derive_seed

NUM_SAMPLES = 1797


def load_digits(val_samples: int = 297, seed: int = 0) -> TrainVal:
    """Load the digits and split them, each label with the same share in both parts.

    Source: UCI "Optical Recognition of Handwritten Digits", test part, as shipped with scikit-learn (CC BY
    4.0). Trained centrally, a small CNN reaches 97.6% on held-out images
    (``benchmarks/central_accuracy.py``).

    Args:
        val_samples: Images held out for validation, between 1 and 1796.
        seed: Seed of the split.

    Returns:
        Images, float32, shape ``(N, 1, 8, 8)``, in [0, 1]; and labels, int64, shape ``(N,)``.

    Raises:
        ModuleNotFoundError: If scikit-learn is not installed.
        ValueError: If a part would be empty.

    Example:
        >>> train, val = load_digits()
        >>> len(train), len(val), tuple(train.tensors[0].shape)
        (1500, 297, (1500, 1, 8, 8))
    """
    check_count("val_samples", val_samples)
    if val_samples >= NUM_SAMPLES:
        raise ValueError(
            f"val_samples={val_samples} leaves none of {NUM_SAMPLES} images to train on; use fewer."
        )
    pixels, labels = _read()
    held_out = stratified(labels, val_samples, np.random.default_rng(derive_seed(seed, "digits")))
    # A pixel counts the dark points, up to 16, of a 4x4 block of the scanned image.
    images = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 16
    targets = torch.from_numpy(labels).long()
    mask = torch.from_numpy(held_out)
    return TrainVal(TensorDataset(images[~mask], targets[~mask]), TensorDataset(images[mask], targets[mask]))


def _read() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "load_digits needs scikit-learn, which holds the images: pip install 'fedlightning[examples]'."
        ) from error
    pixels, labels = datasets.load_digits(return_X_y=True)
    return pixels, labels
