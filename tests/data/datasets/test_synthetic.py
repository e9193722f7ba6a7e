from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedlightning.data.datasets import make_synthetic


def inputs_by_worker(
    alpha: float, beta: float, *, workers: int = 200, iid: bool = False
) -> list[torch.Tensor]:
    data = make_synthetic(alpha, beta, num_workers=workers, iid=iid, max_samples=200)
    parts = data.partition.split(data.dataset).indices
    return [data.dataset.tensors[0][torch.from_numpy(part)] for part in parts]


def test_shapes_and_sizes_of_the_paper() -> None:
    data = make_synthetic(1.0, 1.0)
    inputs, labels = data.dataset.tensors
    sizes = data.partition.split(data.dataset).sizes
    assert len(sizes) == 30
    assert min(sizes) >= 50
    assert max(sizes) > 5 * np.median(sizes)
    assert inputs.shape == (sum(sizes), 60)
    assert inputs.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert set(labels.tolist()) <= set(range(10))


def test_logarithm_of_sizes_has_the_stated_mean_and_spread() -> None:
    # Medians and quartiles: exp(4) + 50, exp(4 +- 0.6745 * 2) + 50.
    data = make_synthetic(num_workers=400, max_samples=1000)
    sizes = np.array(data.partition.split(data.dataset).sizes)
    assert np.median(np.log(sizes - 49.5)) == pytest.approx(4.0, abs=0.4)
    assert np.quantile(np.log(sizes - 49.5), 0.25) == pytest.approx(4 - 1.349, abs=0.5)


def test_inputs_have_the_stated_variances() -> None:
    # Within a worker feature j varies by j ** -1.2; its mean varies by 1 around B_k, which varies by beta^2.
    parts = inputs_by_worker(0.0, 2.0)
    within = torch.stack([part.var(dim=0) for part in parts]).mean(dim=0)
    expected = torch.arange(1, 61) ** -1.2
    assert torch.allclose(within, expected, rtol=0.1)
    centers = torch.stack([part.mean(dim=0) for part in parts])
    assert centers.var(dim=1).mean() == pytest.approx(1.0, rel=0.1)
    assert centers.mean(dim=1).std() == pytest.approx(2.0, rel=0.2)


def test_iid_workers_share_model_and_centre() -> None:
    parts = inputs_by_worker(1.0, 1.0, iid=True)
    centers = torch.stack([part.mean(dim=0) for part in parts])
    assert centers.abs().max() < 5 / math.sqrt(50)


def test_labels_are_those_of_one_linear_model_if_iid() -> None:
    data = make_synthetic(iid=True, num_workers=4, max_samples=100)
    inputs, labels = data.dataset.tensors
    model = torch.nn.Linear(60, 10)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch does not annotate it
    assert (model(inputs).argmax(dim=1) == labels).float().mean() > 0.99


def test_seed_decides() -> None:
    one, again, other = (make_synthetic(num_workers=2, max_samples=60, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.dataset.tensors[0], again.dataset.tensors[0])
    assert not torch.equal(one.dataset.tensors[0][:50], other.dataset.tensors[0][:50])


def test_refuses_impossible_settings() -> None:
    with pytest.raises(ValueError, match=r"alpha=-1 must be a non-negative"):
        make_synthetic(-1)
    with pytest.raises(ValueError, match=r"beta=-0.5 must be a non-negative"):
        make_synthetic(0, -0.5)
    with pytest.raises(ValueError, match="max_samples=10 must be at least 50"):
        make_synthetic(max_samples=10)
