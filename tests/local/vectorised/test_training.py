"""The vectorised path comes to what the sequential one comes to, in double precision to 1e-10."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from tests.local.vectorised.toys import FEATURES, Cohort, Net, assert_same_outcomes, streams

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": partial(SGD, lr=0.1),
    "decay": partial(SGD, lr=0.1, weight_decay=0.1),
    "momentum": partial(SGD, lr=0.1, momentum=0.9),
    "dampening": partial(SGD, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.1),
    "nesterov": partial(SGD, lr=0.1, momentum=0.9, nesterov=True),
    "maximize": partial(SGD, lr=0.01, maximize=True),
    # Where a gradient is next to nothing, rounding decides where Adam goes, unless eps is larger.
    "adam": partial(Adam, lr=0.01, weight_decay=0.1, eps=1e-4),
    "amsgrad": partial(Adam, lr=0.01, amsgrad=True, eps=1e-4),
    "adamw": partial(AdamW, lr=0.01, eps=1e-4),
    "rmsprop": partial(RMSprop, lr=0.01, eps=1e-4, momentum=0.9, centered=True, weight_decay=0.1),
    "adadelta": torch.optim.Adadelta,
    "adamax": partial(torch.optim.Adamax, lr=0.01, eps=1e-4),
    "nadam": partial(torch.optim.NAdam, lr=0.01, eps=1e-4),
    "radam": partial(torch.optim.RAdam, lr=0.01, eps=1e-4),
}
RAGGED = [9, 12, 3, 9, 13, 8, 1]


@pytest.mark.parametrize("policy", ["reset", "keep"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_gives_the_sequential_numbers_on_uneven_shards(name: str, policy: Any) -> None:
    cohort = Cohort(Net(OPTIMIZERS[name]), streams(RAGGED), policy)
    # A round of whole epochs; one that some miss; and one that goes on in the midst of epochs.
    for round, (steps, present) in enumerate([(None, 7), (None, 4), (4, 7)]):
        visits = cohort.visits(round, steps)[:present]
        assert_same_outcomes(cohort.at_once(visits, chunk=3), cohort.one_by_one(visits))


class Residual(nn.Module):
    """Use one weight in two linear maps and a penalty, and a map without an offset on a third dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(FEATURES, FEATURES)
        self.outer = nn.Linear(FEATURES, 8, bias=False)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x) + self.scale * torch.tanh(self.inner(x)) + self.inner.weight.square().mean()
        stacked: Tensor = self.outer(x.unsqueeze(1).expand(-1, 2, -1))
        return stacked.mean(1)


class Convolutions(nn.Module):
    """A small network without a linear map but the head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 2, 3, stride=1, padding=1)
        self.norm = nn.LayerNorm(FEATURES)
        self.pool = nn.AdaptiveMaxPool1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.norm(F.relu(self.conv(x.unsqueeze(1))))).flatten(1)


class Frozen(nn.Module):
    """Keep the first layer as it is, and never use another."""

    def __init__(self) -> None:
        super().__init__()
        self.fixed = nn.Linear(FEATURES, 8).requires_grad_(False)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.fixed(x)
        return features


class Attention(nn.Module):
    """Attend over the features, each a token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(1, 8)
        self.layer = nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=16, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.layer(self.embedding(x.unsqueeze(-1)))
        return tokens.mean(1)


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU())


BODIES = {"residual": Residual, "conv": Convolutions, "frozen": Frozen, "attention": Attention}


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # attention: vmap takes one at a time
@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("optimizer", ["decay", "momentum", "adamw"])
def test_modules_of_many_kinds_give_the_sequential_numbers(name: str, optimizer: str) -> None:
    cohort = Cohort(Net(OPTIMIZERS[optimizer], BODIES[name]()), streams(RAGGED), "keep")
    for round in range(2):
        visits = cohort.visits(round)
        assert_same_outcomes(cohort.at_once(visits), cohort.one_by_one(visits))


def test_batch_norm_keeps_statistics_of_its_own_at_each_worker() -> None:
    cohort = Cohort(Net(OPTIMIZERS["sgd"], normalised()), streams([8, 12, 10, 8]))
    visits = cohort.visits()
    ours, theirs = cohort.at_once(visits), cohort.one_by_one(visits)
    assert_same_outcomes(ours, theirs)
    assert not torch.equal(ours[0].buffers[0], ours[1].buffers[0])


class Noisy(nn.Module):
    """Draw random numbers by dropout, by a shape, and like another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout(0.3), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.map(x)
        hidden = hidden + 0.1 * torch.randn_like(hidden) + torch.rand(8, dtype=x.dtype)
        return F.alpha_dropout(hidden, 0.2, training=True)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_each_worker_draws_the_random_numbers_that_it_draws_alone(chunk: int) -> None:
    cohort = Cohort(Net(OPTIMIZERS["sgd"], Noisy()), streams(RAGGED))
    visits = cohort.visits()
    before = torch.get_rng_state()
    ours = cohort.at_once(visits, chunk=chunk, draws=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_outcomes(ours, cohort.one_by_one(visits))


def test_the_same_seed_gives_the_same_bits() -> None:
    def outcome() -> list[Tensor]:
        torch.manual_seed(0)
        cohort = Cohort(Net(OPTIMIZERS["momentum"], Noisy()), streams(RAGGED))
        return [p for visit in cohort.at_once(cohort.visits(), 3, draws=True) for p in visit.parameters]

    assert all(torch.equal(one, other) for one, other in zip(outcome(), outcome(), strict=True))


class Numbered(Net):
    """Do something else in every second batch, and log under another name."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        if batch_idx % 2:
            self.log("odd", loss, batch_size=7)
            self.log("number", batch_idx)
        return {"loss": loss * (1 + batch_idx)}


def test_workers_whose_batches_have_other_numbers_take_their_steps_apart() -> None:
    cohort = Cohort(Numbered(OPTIMIZERS["adam"]), streams(RAGGED), "keep")
    for round in range(3):
        visits = cohort.visits(round, steps=3)
        assert_same_outcomes(cohort.at_once(visits), cohort.one_by_one(visits))


def test_a_worker_that_does_not_end_finite_fails_alone() -> None:
    data = streams([8, 8, 8])
    data[0].shard.dataset.dataset.tensors[0][8:16] = torch.inf
    cohort = Cohort(Net(OPTIMIZERS["momentum"]), data, "keep", requires_finite=True)
    visits = cohort.visits()
    ours = cohort.at_once(visits)
    theirs = cohort.one_by_one(visits)
    assert [outcome.report.failed for outcome in ours] == [False, True, False]
    assert [outcome.report.failed for outcome in theirs] == [False, True, False]
    assert ours[1].memory == theirs[1].memory
    for healthy in (0, 2):
        assert_same_outcomes([ours[healthy]], [theirs[healthy]])
