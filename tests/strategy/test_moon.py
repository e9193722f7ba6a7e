"""MOON inside a fit, beside a loop written from the paper; what it has in common with others is elsewhere."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from fedlightning.algorithms import FedAvg, Moon
from fedlightning.data import Explicit
from fedlightning.strategy import FederatedStrategy, NotFederatable
from tests.strategy.toys import assert_same_module, samples, trainer

PARTS = {"ann": list(range(12)), "bob": list(range(12, 30))}


class Encodes(L.LightningModule):
    """A representation and a head, trained by plain SGD."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
        self.head = nn.Linear(5, 3)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return cross_entropy(self.head(self.encoder(x)), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def fitted(algorithm: Any, module: L.LightningModule, rounds: int = 3, **settings: Any) -> L.LightningModule:
    """Fit two workers, who have one batch each and look at it three times a round."""
    given: dict[str, Any] = {"local_epochs": 3, "partition": Explicit(PARTS), "seed": 0}
    strategy = FederatedStrategy(algorithm=algorithm, **(given | settings))
    trainer(strategy, max_epochs=rounds).fit(module, DataLoader(samples(30), batch_size=30))
    return module


def looped(module: Encodes, rounds: int, mu: float, temperature: float) -> Encodes:
    """Follow Algorithm 1 of the paper, with its loss as it is written there."""
    x, y = (torch.stack(list(column)) for column in zip(*samples(30), strict=True))
    previous: dict[str, Encodes] = {}
    for _ in range(rounds):
        ends = []
        for name, rows in PARTS.items():
            local, data, labels = deepcopy(module), x[rows], y[rows]
            optimizer = torch.optim.SGD(local.parameters(), lr=0.5)
            for _ in range(3):
                optimizer.zero_grad()
                z = local.encoder(data)
                loss = cross_entropy(local.head(z), labels)
                if name in previous:
                    with torch.no_grad():
                        others = module.encoder(data), previous[name].encoder(data)
                    near, far = (
                        torch.exp(torch.cosine_similarity(z, other) / temperature) for other in others
                    )
                    loss = loss - mu * torch.log(near / (near + far)).mean()
                loss.backward()
                optimizer.step()
            previous[name] = local
            ends.append(local)
        with torch.no_grad():
            for mean, *tensors in zip(module.parameters(), *(end.parameters() for end in ends), strict=True):
                mean.copy_(sum(len(rows) * t for rows, t in zip(PARTS.values(), tensors, strict=True)) / 30)
    return module


@pytest.mark.parametrize("buffers", ["average", "keep"])
def test_a_loop_written_from_the_paper_ends_where_ours_does(buffers: Any) -> None:
    torch.manual_seed(1)
    module = Encodes()
    ours = fitted(Moon("encoder", mu=2.0, temperature=0.5, buffers=buffers), deepcopy(module))
    expected = looped(deepcopy(module), 3, 2.0, 0.5)
    torch.testing.assert_close(ours.state_dict(), expected.state_dict())
    plain = fitted(FedAvg(), deepcopy(module))
    assert not torch.allclose(ours.encoder[0].weight, plain.encoder[0].weight, atol=1e-3)


def test_a_first_visit_is_plain_training() -> None:
    torch.manual_seed(1)
    module = Encodes()
    first = fitted(Moon("encoder"), deepcopy(module), rounds=1)
    assert_same_module(first, fitted(FedAvg(), deepcopy(module), rounds=1))


class ByHand(Encodes):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class LeavesOut(Encodes):
    """Make a loss without the representation."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return cross_entropy(self.head(torch.nn.functional.pad(x, (0, 1))), y)


@pytest.mark.parametrize(
    ("module", "representation", "error", "why"),
    [
        (ByHand, "encoder", NotFederatable, "adds a term to the loss, and under manual optimization"),
        (Encodes, "body", NotFederatable, "'body', and the module has no such part.* It has encoder.0, head"),
        (Encodes, "head", ValueError, "'head' gets what another trained part has made"),
        (LeavesOut, "encoder", ValueError, "a loss without 'encoder'"),
    ],
)
def test_what_has_no_such_representation_is_refused(
    module: type[L.LightningModule], representation: str, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        fitted(Moon(representation), module())


@pytest.mark.parametrize(
    ("settings", "error", "why"),
    [
        ({"representation": ""}, TypeError, "the name of a part such as 'encoder', got ''"),
        ({"representation": "encoder", "mu": -1.0}, ValueError, "mu must be at least 0"),
        ({"representation": "encoder", "temperature": 0.0}, ValueError, "temperature must be more than 0"),
    ],
)
def test_settings_out_of_range_are_refused(
    settings: dict[str, Any], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        Moon(**settings)
