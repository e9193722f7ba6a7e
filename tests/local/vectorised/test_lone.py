"""Steps of one worker at a time in a stack of one come to what the sequential path comes to."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam
from torch.utils._python_dispatch import TorchDispatchMode

from fedlightning.local.vectorised import trial
from fedlightning.local.vectorised.stack import Places, Stack
from fedlightning.local.vectorised.training import VectorisedTraining
from fedlightning.local.vectorised.trial import examine
from tests.local.vectorised.test_trial import errands
from tests.local.vectorised.toys import FEATURES, Cohort, Net, assert_same_outcomes, streams

RAGGED = [9, 12, 3, 9, 1]
MAKES = {
    "sgd": partial(SGD, lr=0.1, weight_decay=0.1),
    "momentum": partial(SGD, lr=0.1, momentum=0.9),
    "adam": partial(Adam, lr=0.01, eps=1e-4),
}


class Images(nn.Module):
    """Convolve in two dimensions, normalize and drop."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x.view(-1, 1, 2, FEATURES // 2))))
        return self.drop(F.max_pool2d(x, (1, 2))).flatten(1)


class Plain(nn.Module):
    """Convolve in two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, (2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.conv(x.view(-1, 1, 2, FEATURES // 2))
        return hidden.flatten(1)


class Pools(nn.Module):
    """Convolve, and pool by maxima."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = F.max_pool2d(self.conv(x.view(-1, 1, 2, FEATURES // 2)), (1, 2))
        return pooled.flatten(1)


class Twice(nn.Module):
    """Use a weight in two linear maps, one on three dimensions, one without an offset; and one as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(FEATURES, FEATURES, bias=False)
        self.outer = nn.Linear(FEATURES, 8)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        stacked = torch.stack([self.inner(x), self.scale * x], 1)
        hidden: Tensor = self.outer(F.linear(stacked, self.inner.weight)).mean(1)
        return hidden + self.inner.weight.square().mean()


@pytest.mark.parametrize("body", [None, Images, Pools, Twice], ids=["linear", "images", "pools", "twice"])
@pytest.mark.parametrize("name", MAKES)
def test_numbers_are_those_of_the_sequential_path(name: str, body: Any) -> None:
    draws = body is Images
    # Batch normalization wants more than one value.
    data = streams([9, 12, 6, 9, 2] if body is Images else RAGGED, 3 if body is Images else 4)
    cohort = Cohort(Net(MAKES[name], None if body is None else body()), data, "keep")
    for round, steps in enumerate([None, 2]):
        visits = cohort.visits(round, steps)
        at_once = cohort.at_once(visits, chunk=1, draws=draws)
        assert_same_outcomes(at_once, cohort.one_by_one(visits))


def test_weights_of_convolutions_lie_channel_by_channel_where_that_changes_no_random_number() -> None:
    module = nn.Conv2d(2, 3, 3)
    weight = Stack(Places(module, SGD(module.parameters(), lr=0.1)), 1, by_channel=True).parameters[0]
    assert weight.shape == (1, 3, 2, 3, 3)
    assert weight[0].is_contiguous(memory_format=torch.channels_last)
    for chunk, draws, expected in ((1, False, True), (1, True, False), (2, False, False)):
        cohort = Cohort(Net(MAKES["sgd"], Plain()), streams([6, 6]))
        training = VectorisedTraining(
            cohort.module, cohort.optimizer, chunk=chunk, numbered=False, draws=draws
        )
        conv = training._stack.parameters[2][0]
        assert conv.dim() == 4
        assert (not conv.is_contiguous()) == expected
        visits = cohort.visits()
        assert_same_outcomes(cohort.at_once(visits, training=training), cohort.one_by_one(visits))


class _PooledGradients(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's, which is untyped
    """Note how the gradients lie that backwards of pooling by maxima are given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.by_channel: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.max_pool2d_with_indices_backward.default:
            self.by_channel.append(args[0].is_contiguous(memory_format=torch.channels_last))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("draws", [False, True])
def test_gradients_of_what_is_pooled_lie_as_it_does(draws: bool) -> None:
    cohort = Cohort(Net(MAKES["sgd"], Pools()), streams([6, 6]))
    with _PooledGradients() as noted:
        cohort.at_once(cohort.visits(), chunk=1, draws=draws)
    assert noted.by_channel
    assert set(noted.by_channel) == {not draws}  # with draws, nothing lies by channel


class Asks(Net):
    """Ask for a number, which vmap refuses and a step by itself may."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return loss * 2 if loss.item() > 1 else loss


def test_long_steps_are_taken_in_chunks_of_one_as_long_as_these_are_not_slower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trial, "LONG_STEP", 0.0)
    clocked = trial._Trial._clocked

    def measured(self: Any, *args: Any) -> Any:
        result = clocked(self, *args)
        self._seconds_alone = 2.0
        return result

    monkeypatch.setattr(trial._Trial, "_clocked", measured)
    cohort = Cohort(Asks(MAKES["sgd"]), streams([8, 8, 8]))
    found = examine(cohort.module, [cohort.optimizer], errands(cohort), "auto")
    assert (found.reason, found.chunk, found.limit) == ("", 1, 2.1)


def test_a_chunk_of_one_is_compared_by_one_step_of_one_worker() -> None:
    cohort = Cohort(Asks(MAKES["sgd"]), streams([8, 8, 8]))
    found = examine(cohort.module, [cohort.optimizer], errands(cohort), 1)
    assert (found.reason, found.chunk, found.draws) == ("", 1, False)
    dropping = Cohort(Net(MAKES["sgd"], Images()), streams([8, 8, 8]))
    found = examine(dropping.module, [dropping.optimizer], errands(dropping), 1)
    assert (found.reason, found.draws) == ("", True)
