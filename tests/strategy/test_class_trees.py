"""Modules and Trainers of two class trees do not fit, and the message says why."""

from __future__ import annotations

import inspect

import lightning as L
import pytest
import pytorch_lightning
import torch
from lightning.pytorch.utilities import compile as unwrapping

from fedlightning.strategy import FederatedStrategy
from fedlightning.strategy.class_trees import explain_mixed_class_trees
from tests.strategy.toys import Classifier


class Other(pytorch_lightning.LightningModule):
    pass


@pytest.fixture(autouse=True)
def explained(monkeypatch: pytest.MonkeyPatch) -> None:
    original = inspect.unwrap(unwrapping._check_mixed_imports)
    monkeypatch.setattr(unwrapping, "_check_mixed_imports", original)
    explain_mixed_class_trees()


def test_lightning_asks_the_function_that_is_replaced() -> None:
    assert "_check_mixed_imports(model)" in inspect.getsource(unwrapping._maybe_unwrap_optimized)


def test_a_module_of_the_other_tree_is_named_by_any_trainer() -> None:
    with pytest.raises(TypeError, match=r"Other is a module of pytorch_lightning.*import lightning as L"):
        unwrapping._maybe_unwrap_optimized(Other())
    with pytest.raises(TypeError, match="You passed a `pytorch_lightning` object"):
        unwrapping._maybe_unwrap_optimized(pytorch_lightning.LightningModule())


def test_all_else_is_as_before() -> None:
    module = Classifier()
    assert unwrapping._maybe_unwrap_optimized(module) is module
    with pytest.raises(TypeError, match="got `Linear`"):
        unwrapping._maybe_unwrap_optimized(torch.nn.Linear(1, 1))
    assert isinstance(unwrapping._maybe_unwrap_optimized(torch.compile(module)), L.LightningModule)


def test_a_trainer_of_the_other_tree_names_the_one_that_is_needed() -> None:
    strategy = FederatedStrategy(2)
    with pytest.raises(TypeError, match=r"FederatedStrategy is a strategy for .*lightning as L.*L.Trainer"):
        pytorch_lightning.Trainer(strategy=strategy, accelerator="cpu", logger=False)  # type: ignore[arg-type]  # the error
    pytorch_lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)


def test_it_is_replaced_once() -> None:
    once = unwrapping._check_mixed_imports
    explain_mixed_class_trees()
    assert unwrapping._check_mixed_imports is once
