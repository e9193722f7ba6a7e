"""Changed inputs: noise of the right size that belongs to the sample, and turns held against SciPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from fedlightning.data.input_change import InTurn, Noise, Rotation, rotate, with_changed_inputs
from fedlightning.data.labels import find_labels

IMAGES = torch.randn(2, 9, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("degrees", [-200.0, 17.0, 45.0, 90.0, 300.0, 719.5])
def test_turns_are_those_of_scipy(degrees: float) -> None:
    expected = ndimage.rotate(
        IMAGES.numpy(), degrees, axes=(-1, -2), reshape=False, order=1, mode="grid-constant"
    )
    np.testing.assert_allclose(rotate(IMAGES, degrees), expected, atol=1e-12)


def test_quarter_turns_of_squares_are_exact() -> None:
    square = IMAGES[:, :7]
    assert torch.equal(rotate(square, 90.0), torch.rot90(square, 1, (-2, -1)))
    assert torch.equal(rotate(square, -90.0), torch.rot90(square, -1, (-2, -1)))
    assert torch.equal(rotate(rotate(IMAGES, 180.0), 180), IMAGES)
    assert torch.equal(rotate(IMAGES, 720), IMAGES)
    torch.testing.assert_close(rotate(square, 89.999999999), rotate(square, 90), rtol=0, atol=1e-9)


def test_noise_has_its_variance_and_belongs_to_the_sample() -> None:
    noise = Noise(variance=0.25, seed=3)
    drawn = torch.stack([noise(torch.zeros(50), number) for number in range(400)])
    # The mean of 20,000 squares has a standard deviation of variance * sqrt(2 / 20000).
    assert float(drawn.mean()) == pytest.approx(0, abs=5 * 0.5 / 20_000**0.5)
    assert float(drawn.square().mean()) == pytest.approx(0.25, abs=5 * 0.25 * (2 / 20_000) ** 0.5)
    assert torch.equal(noise(torch.zeros(50), 7), drawn[7])
    assert not torch.equal(drawn[7], drawn[8])
    assert not torch.equal(Noise(0.25, seed=4)(torch.zeros(50), 7), drawn[7])
    torch.testing.assert_close(Noise(1.0, seed=3)(torch.ones(50), 7), 1 + 2 * drawn[7])


def test_no_noise_is_no_change() -> None:
    assert torch.equal(Noise(0.0, seed=0)(IMAGES, 5), IMAGES)


def test_the_global_stream_is_untouched() -> None:
    before = torch.get_rng_state()
    Noise(1.0, seed=0)(IMAGES, 0)
    assert torch.equal(torch.get_rng_state(), before)


class Scans(Dataset[Any]):
    """Reads samples one by one, in a shape of the test's choice."""

    targets = (0, 1, 0, 1)

    def __init__(self, make: Any) -> None:
        self.make = make

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return self.make(torch.full((3,), float(index)), self.targets[index])


def doubled(inputs: Tensor, number: int) -> Tensor:
    return inputs * 2 + number


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda x, y: (x, y), 0),
        (lambda x, y: [y, x], 1),
        (lambda x, y: {"x": x, "y": y}, "x"),
        (lambda x, y: x, 0),
    ],
    ids=["tuple", "list", "mapping", "tensor"],
)
def test_only_the_inputs_of_a_sample_change(make: Any, where: Any) -> None:
    part = with_changed_inputs(Scans(make), [3, 1], doubled, where)
    expected = make(torch.full((3,), 9.0), 1)
    assert type(part[0]) is type(expected)
    torch.testing.assert_close(part[0], expected)
    assert find_labels(part).tolist() == [1, 1]
    (batch,) = DataLoader(part, batch_size=2)
    torch.testing.assert_close(batch, next(iter(DataLoader([part[0], part[1]], batch_size=2))))


def test_tensors_are_changed_once_for_all_and_the_same() -> None:
    tensors = TensorDataset(torch.randn(5, 3), torch.arange(5))
    change = InTurn((Noise(0.1, seed=1), doubled))
    part = with_changed_inputs(tensors, [4, 0], change)
    assert type(part) is TensorDataset
    lazy = with_changed_inputs(Scans(lambda x, y: (tensors[int(x[0])][0], y)), [0], change)
    assert torch.equal(part.tensors[0][1], lazy[0][0])
    assert part.tensors[1].tolist() == [4, 0]


@pytest.mark.parametrize(
    ("make", "where", "match"),
    [
        (lambda x, y: (x.long(), y), 0, "are torch.int64, and only floating-point tensors"),
        (lambda x, y: (x.numpy(), y), 0, "are ndarray, and only floating-point tensors"),
        (lambda x, y: (x, y), 2, "inputs=2 were not found in a sample of type tuple"),
        (lambda x, y: {"x": x}, "image", "inputs='image' were not found in a sample of type dict"),
        (lambda x, y: (x, y), "x", "inputs='x' were not found in a sample of type tuple"),
    ],
)
def test_inputs_that_cannot_be_changed(make: Any, where: Any, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        with_changed_inputs(Scans(make), [0], doubled, where)[0]


def test_what_is_no_image_cannot_be_turned() -> None:
    with pytest.raises(ValueError, match=r"inputs of shape \(3,\) are no images"):
        Rotation(90)(torch.zeros(3), 0)
