"""The backward pass of a round is Lightning's own method, with something of ours in the plugin's place."""

from __future__ import annotations

import inspect
from typing import Any
from unittest.mock import patch

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from fedlightning.strategy import FederatedStrategy, RoundFailed
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, trainer

PATHS: dict[str, dict[str, Any]] = {
    "plain": {"workers": 1, "local_steps": 1},
    "gradients": {"workers": 3, "local_steps": 1},
    "local": {"workers": 3, "rounds_per_epoch": 2},
}
every_path = pytest.mark.parametrize("path", PATHS)


def test_lightning_calls_its_plugin_where_ours_stands_in() -> None:
    """The plugin is looked up anew for each of three calls, between two hooks of the strategy's."""
    source = inspect.getsource(Strategy.backward)
    calls = ["pre_backward(", "plugin.pre_backward(", "plugin.backward(", "plugin.post_backward("]
    positions = [source.index(f"self.{'precision_' * ('plugin' in call)}{call}") for call in calls]
    assert positions == sorted(positions)
    assert source.index("self.post_backward(") > positions[-1]
    assert source.count("self.precision_plugin") == 3


@every_path
def test_whoever_watches_lightnings_method_sees_every_backward_pass(path: str) -> None:
    expected, _ = fit(FederatedStrategy(seed=0, **PATHS[path]))
    run = trainer(FederatedStrategy(seed=0, **PATHS[path]))
    torch.manual_seed(3)
    module = Classifier()
    with patch.object(Strategy, "backward", wraps=run.strategy.backward) as watched:
        run.fit(module, loader(), loader(12, shuffle=False))
    assert watched.call_count == run.global_step > 0
    assert_same_module(expected, module)


class Sees(L.Callback):
    """Notes which plugin hooks see in a backward pass."""

    def __init__(self) -> None:
        self.seen: list[type[Precision]] = []

    def on_before_backward(self, trainer: L.Trainer, *args: Any) -> None:
        self.seen.append(type(trainer.precision_plugin))

    def on_after_backward(self, trainer: L.Trainer, *args: Any) -> None:
        self.seen.append(type(trainer.precision_plugin))


@pytest.mark.parametrize("path", ["plain", "gradients"])
def test_hooks_see_the_plugin_that_the_trainer_has(path: str) -> None:
    sees = Sees()
    _, run = fit(FederatedStrategy(**PATHS[path]), precision="bf16-mixed", callbacks=[sees], max_steps=2)
    assert sees.seen == [MixedPrecision] * 4
    assert type(run.precision_plugin) is MixedPrecision


class FailsAfterBackward(Classifier):
    def on_after_backward(self) -> None:
        if self.global_step == 1:
            raise KeyError("told")


@pytest.mark.parametrize("path", ["plain", "gradients"])
def test_nothing_stands_in_after_a_failure(path: str) -> None:
    run = trainer(FederatedStrategy(**PATHS[path]))
    with pytest.raises(RoundFailed if path == "plain" else KeyError, match="told"):
        run.fit(FailsAfterBackward(), loader())
    assert type(run.precision_plugin) is Precision
    # What was under way has no part in the next fit.
    run.fit(Classifier(), loader())
    assert run.state.finished


def test_a_backward_of_the_modules_own_is_called_in_plain_rounds() -> None:
    class Own(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.scaled = 0

        def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
            self.scaled += 1
            super().backward(2 * loss, *args, **kwargs)

    ours, run = fit(FederatedStrategy(**PATHS["plain"]), module=Own)
    theirs, _ = fit(module=Own)
    assert ours.scaled == theirs.scaled == run.global_step
    assert_same_module(theirs, ours)
