"""A faithful module passes; one that hides a state, or draws what no seed decides, is found out."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch import Tensor

from fedlightning.testing import check_federation
from tests.strategy.test_optimization import Manual
from tests.strategy.toys import Classifier, loader


def outcomes(module: Any, **settings: Any) -> dict[str, bool | None]:
    return {check.name: check.holds for check in check_federation(module, loader(), **settings)}


def test_a_faithful_module_passes(capsys: pytest.CaptureFixture[str]) -> None:
    module = Classifier()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    found = outcomes(module)
    assert len(found) == 13
    assert all(found.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert capsys.readouterr().out.count("✓") == 13


def test_arguments_of_the_trainer_are_passed_on() -> None:
    assert all(outcomes(Classifier(), gradient_clip_val=0.1, epochs=2).values())


def test_manual_optimization_passes() -> None:
    assert all(outcomes(Manual()).values())


class Hidden(Classifier):
    """Count steps in an attribute that no checkpoint holds, and train by the count."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.count += 1
        return super().training_step(batch, batch_idx) * self.count


def test_a_hidden_state_is_lost_on_resuming() -> None:
    found = outcomes(Hidden())
    assert not found["several workers = stopped after an epoch and resumed"]
    assert found["several workers = the same again"]


class Unseeded(Classifier):
    """Draw from the operating system."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (1 + os.urandom(1)[0])


def test_what_no_seed_decides_is_found() -> None:
    assert not outcomes(Unseeded())["several workers = the same again"]


def test_what_is_refused_is_neither_right_nor_wrong() -> None:
    averaging = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
    checks = check_federation(Classifier(schedule=False), loader(), callbacks=[averaging])
    refused = [check for check in checks if check.holds is None]
    assert refused
    assert all("measures BatchNorm's statistics anew" in check.detail for check in refused)


@pytest.mark.parametrize("name", ["workers", "epochs"])
def test_less_than_two_shows_nothing(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 2, got 1"):
        check_federation(Classifier(), loader(), **{name: 1})
