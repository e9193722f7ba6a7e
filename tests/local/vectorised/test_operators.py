"""The operators for many workers give what torch's own give under vmap; products of the right weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import vmap
from torch.nn import functional as F

from fedlightning.local.vectorised.operators import FEW_CLASSES, WorkerOperators

WORKERS, ROWS, INPUTS, OUTPUTS = 3, 4, 5, 6


def both(function: Callable[..., Tensor], *tensors: Tensor) -> tuple[Tensor, Tensor, WorkerOperators]:
    with WorkerOperators(tensors[1:]) as operators:
        ours = vmap(function)(*tensors)
    return ours, vmap(function)(*tensors), operators


@pytest.mark.parametrize("middle", [(), (2,), (2, 3)])
@pytest.mark.parametrize("offset", [True, False])
def test_linear_maps(middle: tuple[int, ...], offset: bool) -> None:
    x = torch.randn(WORKERS, ROWS, *middle, INPUTS, dtype=torch.float64)
    w = torch.randn(WORKERS, OUTPUTS, INPUTS, dtype=torch.float64, requires_grad=True)
    b = torch.randn(WORKERS, OUTPUTS, dtype=torch.float64, requires_grad=True)
    tensors = (x, w, b) if offset else (x, w)
    ours, theirs, operators = both(lambda *parts: F.linear(*parts), *tensors)
    torch.testing.assert_close(ours, theirs)
    (product,) = operators.products
    (outer,) = torch.autograd.grad(ours.square().sum(), [product.outputs])
    (expected,) = torch.autograd.grad(theirs.square().sum(), [w])
    torch.testing.assert_close(torch.bmm(outer.transpose(1, 2), product.inputs), expected)


def test_a_weight_that_was_computed_keeps_its_own_graph() -> None:
    x = torch.randn(WORKERS, ROWS, INPUTS, dtype=torch.float64)
    w = torch.randn(WORKERS, OUTPUTS, INPUTS, dtype=torch.float64, requires_grad=True)
    ours, theirs, operators = both(lambda x, w: F.linear(x, w.tanh()), x, w)
    assert not operators.products
    torch.testing.assert_close(torch.autograd.grad(ours.sum(), [w]), torch.autograd.grad(theirs.sum(), [w]))


def test_a_map_outside_of_the_graph_leaves_no_product() -> None:
    x = torch.randn(WORKERS, ROWS, INPUTS)
    w = torch.randn(WORKERS, OUTPUTS, INPUTS, requires_grad=True)
    with torch.no_grad():
        _, _, operators = both(F.linear, x, w)
    assert not operators.products


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"label_smoothing": 0.1},
        {"ignore_index": 1},
        {"reduction": "sum"},
        {"weight": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)},
    ],
    ids=lambda settings: "-".join(settings) or "plain",
)
def test_cross_entropy(settings: dict[str, Any]) -> None:
    scores = torch.randn(WORKERS, ROWS, 3, dtype=torch.float64)
    classes = torch.tensor([[0, 1, 2, 1], [2, 2, 0, 0], [1, 0, 1, 2]])
    ours, theirs, _ = both(partial(F.cross_entropy, **settings), scores, classes)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("classes", [FEW_CLASSES, FEW_CLASSES + 1])
def test_gradients_of_cross_entropy_over_few_and_many_classes(classes: int) -> None:
    scores = torch.randn(WORKERS, ROWS, classes, dtype=torch.float64, requires_grad=True)
    expected = torch.randint(classes, (WORKERS, ROWS))
    expected[0, 0] = -100
    ours, theirs, _ = both(F.cross_entropy, scores, expected)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(losses.sum(), scores)[0] for losses in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_cross_entropy_with_probabilities_is_left_to_torch() -> None:
    scores = torch.randn(WORKERS, ROWS, 3, dtype=torch.float64)
    ours, theirs, _ = both(F.cross_entropy, scores, scores.softmax(-1))
    torch.testing.assert_close(ours, theirs)
