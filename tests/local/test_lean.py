"""The lean loop gives the bits of the general loop, and is left wherever somebody would notice it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from fedlightning import FederatedStrategy
from fedlightning.algorithms import (
    Algorithm,
    FedBABU,
    FedDyn,
    FedProx,
    PerFedAvg,
    Scaffold,
)
from fedlightning.local import hooks, lean
from fedlightning.local.hooks import why_not_lean
from fedlightning.local.known import Known
from fedlightning.local.logs import LogRecorder
from fedlightning.pointers.optimizers import follow_parameters
from tests.strategy.toys import Classifier, Memo, assert_same_module, assert_same_optimizer, fit, trainer

SGD = torch.optim.SGD
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "plain": partial(SGD, lr=0.1),
    "decay": partial(SGD, lr=0.05, weight_decay=0.01),
    "whole numbers": partial(SGD, lr=1, weight_decay=1),
    "groups": lambda parameters: SGD(
        [{"params": [p], "lr": 0.01 * n, "weight_decay": 0.1 * (n % 2)} for n, p in enumerate(parameters)]
    ),
    "momentum": partial(SGD, lr=0.05, momentum=0.9),
    "nesterov": partial(SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "maximize": partial(SGD, lr=0.01, maximize=True),
    "tensor rate": partial(SGD, lr=torch.tensor(0.05)),
    "foreach": partial(SGD, lr=0.05, foreach=True),
    "fused": partial(SGD, lr=0.05, fused=True),
    "adam": partial(torch.optim.Adam, lr=0.01),
    "adamw": partial(torch.optim.AdamW, lr=0.01),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.01, momentum=0.9),
    "lbfgs": partial(torch.optim.LBFGS, lr=0.1, max_iter=2),
}
PLAIN = {"plain", "decay", "whole numbers", "groups", "foreach"}


def kind_of(name: str) -> type[lean.LeanOptimization]:
    if name in PLAIN:
        return lean.LeanSGD
    return lean.LeanOptimization if name == "lbfgs" else lean.LeanStep


class Uneven(Classifier):
    """With a frozen parameter, one that is never used, one that is used now and then, and skipped steps."""

    def __init__(self, make: Any) -> None:
        super().__init__(make)
        self.net[0].bias.requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(2))
        self.seldom = nn.Parameter(torch.ones(()))
        self.table = nn.Embedding(3, 2, sparse=make is OPTIMIZERS["plain"])
        self.turned = nn.Parameter(torch.ones(3, 2))
        self.summed = nn.Parameter(torch.ones(4))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        if batch_idx == 2:
            return None
        loss = super().training_step(batch, batch_idx) + self.table(batch[1]).pow(2).mean()
        # Gradients of other strides than their parameters': transposed, and the same number all over.
        loss = loss + (self.turned.t() * torch.arange(6.0).view(2, 3)).sum().sin() + self.summed.sum().cos()
        return {"loss": loss * self.seldom if batch_idx % 2 else loss}


@pytest.mark.parametrize("make_module", [Classifier, Uneven])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_lean_loop_gives_the_bits_of_the_general_one(
    name: str, make_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "lbfgs":
        make_module = Classifier  # torch's wants a loss from every step
    make = OPTIMIZERS[name]
    chosen: list[type] = []
    choose = lean.lean_optimization

    def noted(*args: Any) -> Any:
        chosen.append(type(choose(*args)))
        return choose(*args)

    monkeypatch.setattr("fedlightning.local.visit_steps.lean_optimization", noted)
    monkeypatch.setattr("fedlightning.local.one_by_one.resident.lean_optimization", noted)
    lean_log, log = Memo(), Memo()
    settings: dict[str, Any] = {"optimizer_state": "keep", "local_epochs": 2, "seed": 0}
    ours, our_run = fit(FederatedStrategy(3, **settings), module=lambda: make_module(make), logger=lean_log)
    assert set(chosen) == {kind_of(name)}

    monkeypatch.setattr(Known, "why_not_lean", "told so")
    count = len(chosen)
    general, run = fit(FederatedStrategy(3, **settings), module=lambda: make_module(make), logger=log)
    assert len(chosen) == count
    assert_same_module(ours, general)
    assert_same_optimizer(our_run.optimizers[0], run.optimizers[0])
    assert lean_log.entries == log.entries


class OfItself(Classifier):
    """Has a loss that lies in the memory of a parameter."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return self.net[0].bias[0]


@pytest.mark.parametrize("name", ["plain", "adam"])
def test_a_loss_in_the_memory_of_a_parameter_is_what_it_was_before_the_step(name: str) -> None:
    module = OfItself(OPTIMIZERS[name])
    before = module.net[0].bias[0].item()
    optimization = lean.lean_optimization(module, OPTIMIZERS[name](module.parameters()), LogRecorder(module))
    loss = optimization.step([torch.ones(1)], 0, passes_batch_idx=True, last=True)
    assert loss is not None
    assert loss.item() == before != module.net[0].bias[0].item()


# With gradients that are changed, that are dropped, and that nobody steps along.
CORRECTING: list[Algorithm] = [
    FedProx(mu=0.5),
    FedDyn(alpha=0.1),
    Scaffold(),
    PerFedAvg(alpha=0.1),
    FedBABU(head=["net.0"]),
]


@pytest.mark.parametrize("algorithm", CORRECTING, ids=lambda algorithm: type(algorithm).__name__)
def test_corrected_steps_give_the_bits_of_the_general_loop(
    algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    begin = lean.CorrectedSGD.__init__

    def noted(self: lean.CorrectedSGD, *args: Any) -> None:
        made.append(self)
        begin(self, *args)

    monkeypatch.setattr(lean.CorrectedSGD, "__init__", noted)
    settings: dict[str, Any] = {"algorithm": algorithm, "local_epochs": 2, "seed": 0}
    lean_log, log = Memo(), Memo()

    def module() -> Classifier:
        return Uneven(OPTIMIZERS["decay"])

    ours, _ = fit(FederatedStrategy(3, **settings), module=module, logger=lean_log)
    assert made

    monkeypatch.setattr(Known, "why_not_lean", "told so")
    made.clear()
    general, _ = fit(FederatedStrategy(3, **settings), module=module, logger=log)
    assert not made
    assert_same_module(ours, general)
    assert lean_log.entries == log.entries


def test_a_scheduler_sees_that_the_optimizer_has_stepped() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*lr_scheduler.step.*")
        module, _ = fit(FederatedStrategy(3), module=lambda: Classifier(partial(SGD, lr=0.1)))
    assert module.trainer.optimizers[0].param_groups[0]["lr"] < 0.1


def attached(module: L.LightningModule, **settings: Any) -> L.LightningModule:
    run = trainer(**settings)
    run.strategy.connect(module)
    module.trainer = run
    return module


def test_nothing_is_in_the_way_of_an_ordinary_module() -> None:
    assert why_not_lean(attached(Classifier())) == ""


@pytest.mark.parametrize("hook", hooks.MODULE_HOOKS)
def test_a_module_that_overrides_a_hook_takes_the_general_loop(hook: str) -> None:
    kind = type("Hooked", (Classifier,), {hook: lambda self, *args, **kwargs: None})
    assert why_not_lean(attached(kind())) == f"Hooked.{hook}"


@pytest.mark.parametrize("hook", hooks.STEP_HOOKS)
def test_a_callback_that_overrides_a_hook_takes_the_general_loop(hook: str) -> None:
    kind = type("Hooked", (L.Callback,), {hook: lambda self, *args, **kwargs: None})
    assert why_not_lean(attached(Classifier(), callbacks=[kind()])) == f"Hooked.{hook}"


@pytest.mark.parametrize("hook", hooks.BATCH_HOOKS)
def test_a_datamodule_that_overrides_a_hook_takes_the_general_loop(hook: str) -> None:
    module = attached(Classifier())
    kind = type("Hooked", (L.LightningDataModule,), {hook: lambda self, batch, *args: batch})
    module.trainer.datamodule = kind()
    assert why_not_lean(module) == f"Hooked.{hook}"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"gradient_clip_val": 0.1}, "gradient clipping"),
        ({"precision": "bf16-mixed"}, "precision bf16-mixed"),
    ],
)
def test_what_the_trainer_does_to_a_step_takes_the_general_loop(settings: dict[str, Any], why: str) -> None:
    assert why_not_lean(attached(Classifier(), **settings)) == why


@pytest.mark.parametrize("register", ["register_step_pre_hook", "register_step_post_hook"])
def test_whoever_listens_to_an_optimizer_hears_its_steps(register: str) -> None:
    optimizer = SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    assert lean.LeanSGD.fits(optimizer)
    getattr(optimizer, register)(lambda *args: None)
    assert not lean.LeanSGD.fits(optimizer)


def test_our_own_hook_is_no_listener_and_a_stranger_s_is() -> None:
    follow_parameters()
    optimizer = SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    assert lean.LeanSGD.fits(optimizer)
    handle = register_optimizer_step_pre_hook(lambda *args: None)
    try:
        assert not lean.LeanSGD.fits(optimizer)
    finally:
        handle.remove()


def test_whoever_listens_to_gradients_gets_them() -> None:
    parameter = nn.Parameter(torch.ones(2))
    parameter.register_post_accumulate_grad_hook(lambda _: None)
    assert not lean.LeanSGD.fits(SGD([parameter], lr=0.1))


def test_a_step_of_torch_s_that_somebody_may_notice_is_taken_by_a_closure() -> None:
    parameter = nn.Parameter(torch.ones(2))
    assert lean.LeanStep.fits(torch.optim.Adam([parameter]))
    assert not lean.LeanStep.fits(torch.optim.Adam([parameter], differentiable=True))
    assert not lean.LeanStep.fits(torch.optim.LBFGS([parameter]))
    patched = torch.optim.Adam([parameter])
    patched.zero_grad = lambda set_to_none=True: None  # type: ignore[method-assign]  # as libraries do
    assert not lean.LeanStep.fits(patched)
    heard = torch.optim.Adam([parameter])
    heard.register_step_pre_hook(lambda *args: None)
    assert not lean.LeanStep.fits(heard)
    parameter.register_post_accumulate_grad_hook(lambda _: None)
    assert not lean.LeanStep.fits(torch.optim.Adam([parameter]))


class Own(torch.optim.Adam):
    """A user's, which may do anything."""


def test_a_user_s_own_optimizer_is_given_a_closure() -> None:
    assert not lean.LeanStep.fits(Own([nn.Parameter(torch.ones(2))]))


def test_a_step_leaves_gradients_where_the_next_one_may_look_at_them() -> None:
    seen: list[bool] = []

    class Looking(Classifier):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
            seen.append(self.net[0].weight.grad is not None)
            return super().training_step(batch, batch_idx)

    fit(FederatedStrategy(1, local_steps=3), module=lambda: Looking(OPTIMIZERS["adam"]))
    assert seen[:3] == [False, True, True]
