"""Synthetic(alpha, beta): logistic regression whose model and inputs differ from worker to worker."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import TensorDataset

from fedlightning.data.checks import check_count, check_real
from fedlightning.data.datasets.grouped import GroupedData
from fedlightning.workers.random import derive_seed

NUM_FEATURES = 60
NUM_CLASSES = 10
FEWEST_SAMPLES = 50


def make_synthetic(
    alpha: float = 1.0,
    beta: float = 1.0,
    *,
    num_workers: int = 30,
    iid: bool = False,
    max_samples: int | None = None,
    seed: int = 0,
) -> GroupedData:
    """Draw the data set Synthetic(alpha, beta) of the FedProx paper.

    For worker k: ``u_k ~ N(0, alpha)``; ``W_k, b_k ~ N(u_k, 1)``; ``B_k ~ N(0, beta)``;
    ``v_k ~ N(B_k, 1)``; ``x ~ N(v_k, Sigma)`` with ``Sigma_jj = j ** -1.2``; ``y = argmax(W_k x + b_k)``.
    Alpha says how much the workers' models differ, beta how much their inputs do. As in the authors' program,
    which made the published sets (0, 0), (0.5, 0.5) and (1, 1), both are standard deviations; sizes are
    ``floor(LogNormal(4, 2)) + 50``.

    Source: Li et al. 2020, "Federated Optimization in Heterogeneous Networks", section 5.1 and appendix C.1.
    Drawn here, so without a licence. Trained centrally, a linear model reaches 92.8% on a held-out fifth of
    Synthetic(1, 1) (``benchmarks/central_accuracy.py``).

    Args:
        alpha: Spread of the models, non-negative.
        beta: Spread of the inputs, non-negative.
        num_workers: Number of workers, 30 in the paper.
        iid: Whether all workers share one model and inputs of mean 0 ("Synthetic IID"); alpha and beta then
            have no effect.
        max_samples: Most samples of a worker; None keeps the long tail (thousands).
        seed: Seed of all draws.

    Returns:
        Inputs, float32, shape ``(N, 60)``; labels in [0, 10), int64; and each sample's worker.

    Raises:
        ValueError: If alpha or beta is negative, there is no worker, or ``max_samples`` is below 50.

    Example:
        >>> data = make_synthetic(0.5, 0.5, num_workers=3, max_samples=100)
        >>> data.partition.split(data.dataset).worker_names
        ('worker-0', 'worker-1', 'worker-2')
    """
    check_real("alpha", alpha, zero_allowed=True, remedy="0 makes the workers' models alike but not equal.")
    check_real("beta", beta, zero_allowed=True, remedy="0 makes the workers' inputs alike but not equal.")
    check_count("num_workers", num_workers)
    if max_samples is not None:
        check_count("max_samples", max_samples, minimum=FEWEST_SAMPLES)
    rng = np.random.default_rng(derive_seed(seed, "synthetic"))
    drawn = np.floor(rng.lognormal(4.0, 2.0, num_workers)) + FEWEST_SAMPLES
    sizes = np.minimum(drawn, np.inf if max_samples is None else max_samples).astype(np.int64)
    shared_model = _draw_model(0.0, rng)
    inputs, labels = [], []
    for size in sizes:
        weights, bias = shared_model if iid else _draw_model(alpha * rng.standard_normal(), rng)
        center = np.zeros(NUM_FEATURES) if iid else _draw_center(beta, rng)
        deviations = np.arange(1, NUM_FEATURES + 1) ** -0.6  # square root of the variances j ** -1.2
        x = center + deviations * rng.standard_normal((size, NUM_FEATURES))
        inputs.append(x)
        labels.append((x @ weights + bias).argmax(axis=1))
    width = len(str(num_workers - 1))
    names = np.array([f"worker-{number:0{width}d}" for number in range(num_workers)])
    dataset = TensorDataset(
        torch.from_numpy(np.concatenate(inputs)).float(), torch.from_numpy(np.concatenate(labels))
    )
    return GroupedData(dataset, np.repeat(names, sizes))


def _draw_model(mean: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw weights of shape (features, classes) and a bias of shape (classes,) around a mean."""
    return rng.normal(mean, 1.0, (NUM_FEATURES, NUM_CLASSES)), rng.normal(mean, 1.0, NUM_CLASSES)


def _draw_center(beta: float, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(beta * rng.standard_normal(), 1.0, NUM_FEATURES)
