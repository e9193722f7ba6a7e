"""Attacks inside a fit: by hand, what they do to the mean, and which defences withstand them."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedlightning.algorithms import FedAvg, Median, Scaffold
from fedlightning.algorithms.attacks import (
    ALIE,
    Attack,
    BackdoorPatch,
    BadWorkers,
    Gaussian,
    InnerProduct,
    LabelFlip,
    Replacement,
    SignFlip,
)
from fedlightning.algorithms.postprocessing import Clip
from fedlightning.strategy import FederatedStrategy
from fedlightning.workers import VirtualWorker, Worker
from tests.strategy.conftest import MakeWorkers
from tests.strategy.quadratic import assert_at, fit_quadratic
from tests.strategy.remote_toys import Travelling
from tests.strategy.toys import Classifier, assert_same_module, fit

ATTACKS: list[Attack] = [
    SignFlip(),
    Replacement(),
    Gaussian(),
    LabelFlip(classes=3),
    BackdoorPatch(target=0, size=1),
    ALIE(z=1.5),
    InnerProduct(),
]


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (SignFlip(), [0.875, -0.75]),
        (Replacement(scale=2.0), [0.875, 1.5]),
        (InnerProduct(epsilon=1.0), [0.0, 0.0]),
        (ALIE(), [1.75, 0.0]),
    ],
    ids=repr,
)
def test_one_round_by_hand(attack: Attack, expected: list[float]) -> None:
    """Ann goes (1.75, 0) and bob, who is bad, should go (0, 1.5)."""
    module, _ = fit_quadratic(rounds=1, bad_workers=BadWorkers(attack, names=("bob",)))
    assert_at(module, expected)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_nobody_bad_is_nothing_at_all(attack: Attack) -> None:
    def run(**settings: Any) -> L.LightningModule:
        return fit(FederatedStrategy(4, local_steps=2, **settings), module=lambda: Classifier(sgd))[0]

    assert_same_module(run(bad_workers=BadWorkers(attack, share=0)), run())


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
@pytest.mark.parametrize(
    "settings", [{}, {"algorithm": Scaffold()}, {"postprocess": [Clip(norm=1.0)]}], ids=lambda s: str(list(s))
)
def test_a_trusted_aggregator_gives_the_same_bits(attack: Attack, settings: dict[str, Any]) -> None:
    def run(**more: Any) -> L.LightningModule:
        bad = BadWorkers(attack, share=0.5)
        strategy = FederatedStrategy(4, local_steps=2, bad_workers=bad, **settings, **more)
        return fit(strategy, module=lambda: Classifier(sgd), max_epochs=1)[0]

    assert_same_module(run(), run(aggregator=VirtualWorker(id="trusted")))


class Softmax(L.LightningModule):
    """Two classes by a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 2)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.map(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def accuracy(attack: Attack | None, rule: Any) -> float:
    """Return the accuracy after a fit at ten workers of whom two are bad."""
    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, (x[:, 0] > 0).long())
    bad = None if attack is None else BadWorkers(attack, share=0.2)
    strategy = FederatedStrategy(10, aggregation=rule, bad_workers=bad, seed=0)
    module, _ = fit(strategy, module=Softmax, train=DataLoader(data, batch_size=10), max_epochs=4)
    assert isinstance(module, Softmax)
    return float((module.map(x).argmax(1) == data.tensors[1]).float().mean())


@pytest.mark.parametrize("attack", [SignFlip(scale=10.0), Gaussian(std=20.0)], ids=repr)
def test_the_mean_falls_and_the_median_stands(attack: Attack) -> None:
    assert accuracy(None, None) > 0.9
    assert accuracy(attack, Median()) > 0.9 > accuracy(attack, None)


PATCH = BackdoorPatch(target=1, size=1, value=3.0, fraction=1.0)


@pytest.mark.parametrize("attack", [PATCH, Replacement(scale=5.0, trained_on=PATCH)], ids=repr)
def test_a_back_door_opens_in_the_mean_and_not_without_bad_workers(attack: Attack) -> None:

    def opened(bad: BadWorkers | None) -> float:
        x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
        y = (x[:, 0] > 0).long()
        strategy = FederatedStrategy(10, bad_workers=bad, seed=0)
        train = DataLoader(TensorDataset(x, y), batch_size=10)
        module, _ = fit(strategy, module=Softmax, train=train, max_epochs=4)
        assert isinstance(module, Softmax)
        return float((module.map(PATCH.stamp(x[y == 0])).argmax(1) == 1).float().mean())

    assert opened(BadWorkers(attack, share=0.2)) > 0.5 > 0.2 > opened(None)


@pytest.mark.xdist_group("workers elsewhere")
@pytest.mark.parametrize("attack", [SignFlip(), LabelFlip(classes=3), InnerProduct()], ids=repr)
def test_workers_in_other_processes_are_as_bad(attack: Attack, workers_elsewhere: MakeWorkers) -> None:
    def ends(workers: list[Worker]) -> L.LightningModule:
        bad = BadWorkers(attack, names=("b",))
        strategy = FederatedStrategy(workers, local_steps=2, bad_workers=bad, algorithm=FedAvg())
        return fit(strategy, module=Travelling, max_epochs=1)[0]

    far = ends(workers_elsewhere("a", "b"))
    assert_same_module(far, ends([VirtualWorker(id=name) for name in ("a", "b")]))


def test_nonsense_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="bad_workers must be a"):
        FederatedStrategy(2, bad_workers=SignFlip())  # type: ignore[arg-type]  # what is tested
