"""A module's hooks are called as in an ordinary fit, and its steps may leave out parts."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedlightning.strategy import FederatedStrategy
from fedlightning.workers import VirtualWorker
from tests.strategy.toys import Classifier, assert_same_module, fit


class Hooks(Classifier):
    """Overrides the hooks around a batch and writes down what reached them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.seen.append(("before", type(batch).__name__))
        return batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        self.seen.append(("transfer", type(batch).__name__))
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.seen.append(("after", type(batch).__name__))
        x, y = batch
        return [x * 2, y]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(("batch start", type(batch).__name__))


@pytest.mark.parametrize("local_steps", [1, 2])
def test_batch_hooks_see_the_workers_batches_and_never_a_plan(local_steps: int) -> None:
    bob = VirtualWorker(id="bob")
    module, _ = fit(
        FederatedStrategy([bob], local_steps=local_steps), module=Hooks(), max_epochs=1, limit_val_batches=0
    )
    of_batches = [name for name, kind in module.seen if kind == "list"]
    assert of_batches == ["before", "transfer", "after"] * 8
    assert {kind for name, kind in module.seen if name == "batch start"} == {"Plan"}
    assert "_on_before_batch_transfer" not in vars(module)
    copy.deepcopy(module)


def test_batch_hooks_change_what_is_learned() -> None:
    """The same hooks as in a plain fit, with the same bits."""
    plain, _ = fit(module=Hooks)
    ours, _ = fit(FederatedStrategy(1, local_steps=1), module=Hooks)
    assert_same_module(plain, ours)


class OrderedHooks(Classifier):
    """Writes down the hooks of one optimizer step."""

    def __init__(self) -> None:
        super().__init__()
        self.trace: list[str] = []

    def training_step(self, *args: Any) -> Tensor:
        self.trace.append("training_step")
        return super().training_step(*args)

    def on_before_zero_grad(self, *args: Any) -> None:
        self.trace.append("on_before_zero_grad")

    def backward(self, *args: Any, **kwargs: Any) -> None:
        self.trace.append("backward")
        super().backward(*args, **kwargs)

    def on_before_backward(self, loss: Tensor) -> None:
        self.trace.append("on_before_backward")

    def on_after_backward(self) -> None:
        self.trace.append("on_after_backward")

    def on_before_optimizer_step(self, *args: Any) -> None:
        self.trace.append("on_before_optimizer_step")

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        self.trace.append("configure_gradient_clipping")


def test_a_local_step_calls_hooks_in_lightnings_order() -> None:
    plain, _ = fit(module=OrderedHooks(), max_epochs=1)
    ours, _ = fit(FederatedStrategy(1), module=OrderedHooks(), max_epochs=1)
    # The round itself zeroes gradients once more, after the local steps.
    assert ours.trace == [*plain.trace, "on_before_zero_grad"]


def test_frozen_parts_stay_and_unused_parts_do_not_disturb() -> None:
    class Partly(Classifier):
        def __init__(self) -> None:
            super().__init__(lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9))
            self.net[0].requires_grad_(False)
            self.unused = nn.Linear(3, 3)

    for settings in ({"local_steps": 1}, {}):
        torch.manual_seed(0)
        module = Partly()
        before = copy.deepcopy(module.state_dict())
        fit(FederatedStrategy(3, **settings), module=module)
        for name in ("net.0.weight", "unused.weight"):
            assert torch.equal(module.state_dict()[name], before[name])
        assert not torch.equal(module.state_dict()["net.4.weight"], before["net.4.weight"])


def test_a_step_that_returns_none_is_skipped() -> None:
    class Skips(Classifier):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx % 2 else loss

    make = partial(Skips, schedule=False)
    plain, _ = fit(module=make, max_epochs=1)
    ours, _ = fit(FederatedStrategy(1), module=make, max_epochs=1)
    again, _ = fit(FederatedStrategy(1, local_steps=1), module=make, max_epochs=1)
    assert_same_module(plain, again)
    assert_same_module(plain, ours)
