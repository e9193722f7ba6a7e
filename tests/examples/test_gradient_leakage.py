"""One worker's gradient gives its image away; the average over a large cohort does not."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedlightning.data.datasets import load_digits
from fedlightning.examples.leakage import deep_leakage, gradient_of, invert_first_layer, label_of

SCRIPT = runpy.run_path(str(Path(__file__).resolve().parents[2] / "examples" / "gradient_leakage.py"))
COHORT = 50


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    images, labels = load_digits().train.tensors
    return images.flatten(1).double(), labels


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 16), nn.Sigmoid(), nn.Linear(16, 10)).double()


@pytest.fixture(scope="module")
def seen(network: nn.Module, digits: tuple[Tensor, Tensor]) -> dict[int, Tensor]:
    """What reaches the controller, by the number of workers whose updates are averaged."""
    images, labels = digits
    updates = SCRIPT["updates_seen"](network, images[:COHORT], labels[:COHORT])
    return dict(zip(SCRIPT["COHORTS"], updates, strict=True))


def error(candidates: Tensor, image: Tensor) -> float:
    """Mean squared error of the candidate that is nearest."""
    return float((candidates.clamp(0, 1) - image).square().mean(1).min())


def test_the_controller_sees_one_gradient_and_averages(
    seen: dict[int, Tensor], network: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    images, labels = digits
    for cohort, update in seen.items():
        # Equal weights, one image each: the average is the gradient of the mean loss over the cohort.
        torch.testing.assert_close(update, gradient_of(network, images[:cohort], labels[:cohort]))


def test_the_first_layer_gives_one_image_away(
    seen: dict[int, Tensor], network: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    candidates = invert_first_layer(network, seen[1])
    torch.testing.assert_close(candidates, digits[0][:1].expand(16, 64))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_last_bias_gives_the_label_away(
    which: int, network: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    images, labels = (tensor[which : which + 1] for tensor in digits)
    assert label_of(gradient_of(network, images, labels), classes=10) == labels.item()


def test_a_search_finds_one_image(
    seen: dict[int, Tensor], network: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    found = deep_leakage(network, seen[1], [int(digits[1][0])], steps=300)
    torch.testing.assert_close(found, digits[0][:1], atol=1e-3, rtol=0)


def test_an_average_over_ten_is_still_found_by_a_search(
    seen: dict[int, Tensor], network: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    labels = digits[1][:10].tolist()
    # Not every start leads there; an attacker has as many as he likes.
    found = (deep_leakage(network, seen[10], labels, seed=seed) for seed in (1, 2, 3, 4))
    assert any(error(images, digits[0][0]) < 0.002 for images in found)


def test_an_average_over_fifty_tells_less_than_strangers_digits(
    seen: dict[int, Tensor], network: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    images, labels = digits
    found = deep_leakage(network, seen[COHORT], labels[:COHORT].tolist(), seed=1)
    guess = error(images[COHORT : 2 * COHORT], images[0])
    assert error(found, images[0]) > 2 * guess
    assert error(invert_first_layer(network, seen[COHORT]), images[0]) > 2 * guess
    # The search did not merely stop early: what it found has the average that was seen.
    again = gradient_of(network, found, labels[:COHORT])
    assert (again - seen[COHORT]).norm() < 0.01 * seen[COHORT].norm()
