"""One worker's gradient gives its image away; the average over a large cohort does not."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedlightning.data.datasets import load_digits
from fedlightning.examples.leakage import (
    deep_leakage,
    gradient_of,
    invert_first_layer,
    label_of,
    nearest,
    small_cnn,
    small_mlp,
)

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "gradient_leakage.py"
COHORT = 50
NETWORKS = pytest.mark.parametrize("network", [small_mlp(), small_cnn()], ids=["mlp", "cnn"])


@pytest.fixture(scope="module")
def seen() -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """What reaches the controller."""
    return runpy.run_path(str(SCRIPT), run_name="gradient_leakage")["seen"]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return load_digits().train.tensors[0].flatten(1).double()


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return load_digits().train.tensors[1]


@NETWORKS
@pytest.mark.parametrize("cohort", [1, 10])
def test_the_controller_sees_the_average(
    network: nn.Module, cohort: int, seen: Callable[..., Tensor], images: Tensor, labels: Tensor
) -> None:
    # Equal weights, one image each: the average is the gradient of the mean loss over the cohort.
    expected = gradient_of(network, images[:cohort], labels[:cohort])
    torch.testing.assert_close(seen(network, images[:cohort], labels[:cohort]), expected)


def test_the_networks_do_not_touch_the_random_stream() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    small_mlp(), small_cnn()
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("victim", [2, 5, 6])
def test_the_first_layer_gives_one_image_away(victim: int, images: Tensor, labels: Tensor) -> None:
    gradient = gradient_of(small_mlp(), images[[victim]], labels[[victim]])
    torch.testing.assert_close(
        invert_first_layer(small_mlp(), gradient), images[[victim]].expand(16, 64), atol=1e-6, rtol=0
    )


@NETWORKS
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_the_last_bias_gives_the_label_away(
    network: nn.Module, victim: int, images: Tensor, labels: Tensor
) -> None:
    gradient = gradient_of(network, images[[victim]], labels[[victim]])
    assert label_of(gradient, classes=10) == labels[victim]


@pytest.mark.parametrize("victim", [2, 5])
def test_a_search_finds_one_image(victim: int, images: Tensor, labels: Tensor) -> None:
    gradient = gradient_of(small_cnn(), images[[victim]], labels[[victim]])
    found = deep_leakage(small_cnn(), gradient, [int(labels[victim])], pixels=64, steps=300)
    assert nearest(found, images[victim])[1] < 1e-3


def test_a_search_finds_an_image_in_an_average_over_ten(images: Tensor, labels: Tensor) -> None:
    gradient = gradient_of(small_cnn(), images[:10], labels[:10])
    found = deep_leakage(small_cnn(), gradient, labels[:10].tolist(), pixels=64, steps=300)
    assert min(nearest(found, image)[1] for image in images[:10]) < 1e-3


def test_an_average_over_fifty_tells_no_more_than_strangers_digits(images: Tensor, labels: Tensor) -> None:
    gradient = gradient_of(small_cnn(), images[:COHORT], labels[:COHORT])
    found = deep_leakage(small_cnn(), gradient, labels[:COHORT].tolist(), pixels=64, steps=300)
    strangers = images[COHORT : 2 * COHORT]
    by_search = torch.tensor([nearest(found, image)[1] for image in images[:COHORT]])
    by_guessing = torch.tensor([nearest(strangers, image)[1] for image in images[:COHORT]])
    assert by_search.mean() > by_guessing.mean()
    # No image at all is found, not just few.
    assert by_search.min() > 0.005
    # The search did not merely stop early: what it found has the average that was seen.
    again = gradient_of(small_cnn(), found, labels[:COHORT])
    assert (again - gradient).norm() < 0.01 * gradient.norm()


def test_the_first_layer_of_an_average_tells_less_than_strangers_digits(
    images: Tensor, labels: Tensor
) -> None:
    gradient = gradient_of(small_mlp(), images[:COHORT], labels[:COHORT])
    found = invert_first_layer(small_mlp(), gradient).clamp(0, 1)
    strangers = images[COHORT : 2 * COHORT]
    by_division = torch.tensor([nearest(found, image)[1] for image in images[:COHORT]])
    by_guessing = torch.tensor([nearest(strangers, image)[1] for image in images[:COHORT]])
    assert by_division.mean() > by_guessing.mean()
