"""Steps in memory that stays from visit to visit have the bits of torch's own, and leave the same state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from fedlightning import FederatedStrategy
from fedlightning.local.known import Known
from fedlightning.local.lean import LeanOptimization, LeanStep
from fedlightning.local.logs import LogRecorder
from fedlightning.local.one_by_one import momentum
from fedlightning.local.one_by_one.resident import ResidentStep, resident_optimization
from tests.strategy.toys import Classifier, Memo, assert_same_module, fit

Make = Callable[..., Optimizer]

MAKE: dict[str, Make] = {
    "momentum": partial(SGD, lr=0.05, momentum=0.9),
    "dampening": partial(SGD, lr=0.05, momentum=0.5, dampening=0.1, weight_decay=0.01),
    "nesterov": partial(SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1),
    "adam": partial(Adam, lr=0.01),
    "adam with decay": partial(Adam, lr=0.01, betas=(0.5, 0.9), weight_decay=0.1),
    "adamw": partial(AdamW, lr=0.01, eps=1e-3),
    "groups": lambda parameters: SGD(
        [{"params": [p], "lr": 0.01 * n} for n, p in enumerate(parameters)], lr=0.1, momentum=0.9
    ),
}
OTHERS: dict[str, Make] = {
    "maximize": partial(SGD, lr=0.01, momentum=0.9, maximize=True),
    "foreach": partial(SGD, lr=0.01, momentum=0.9, foreach=True),
    "tensor rate": partial(SGD, lr=torch.tensor(0.05), momentum=0.9),
    "amsgrad": partial(Adam, lr=0.01, amsgrad=True),
    "fused": partial(Adam, lr=0.01, fused=True),
}


class Net(pl.LightningModule):
    """Has parameters of sizes that kernels treat otherwise: multiples of 64 numbers, and others."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 3), nn.Linear(3, 1)).to(dtype)

    def training_step(self, batch: Tensor) -> Any:
        return self.net(batch).square().mean()


class Seldom(Net):
    """Does not use all of its parameters in each step."""

    def training_step(self, batch: Tensor) -> Any:
        hidden = self.net[:3](batch)
        return (self.net[3](hidden) if batch[0, 0] > 0 else hidden).square().mean()


class Turned(Net):
    """Has gradients that do not lie as their parameters do."""

    def __init__(self) -> None:
        super().__init__()
        self.turned = nn.Parameter(torch.ones(16, 8))

    def training_step(self, batch: Tensor) -> Any:
        return super().training_step(batch) + (batch.t() @ (batch @ self.turned)).t().sin().sum()


def states(optimizer: Optimizer) -> list[Tensor]:
    return [value.clone() for own in optimizer.state_dict()["state"].values() for value in own.values()]


def trained(
    choose: Callable[..., LeanOptimization], make_module: Callable[[], Net], make: Make, visits: int = 3
) -> tuple[list[Tensor], LeanOptimization]:
    """Return what visits have made of parameters and states, step by step."""
    module = make_module()
    optimizer = make(module.parameters())
    optimization = choose(module, optimizer, LogRecorder(module))
    generator = torch.Generator().manual_seed(2)
    dtype = next(module.parameters()).dtype
    seen: list[Tensor] = []
    for _ in range(visits):
        optimizer.state = defaultdict(dict)
        for step in range(4):
            batch = torch.randn(5, 16, generator=generator, dtype=dtype)
            loss = optimization.take(batch, step, passes_batch_idx=False)
            assert loss is not None
            seen += [
                loss,
                *(parameter.detach().clone() for parameter in module.parameters()),
                *states(optimizer),
            ]
    return seen, optimization


def assert_same_bits(make_module: Callable[[], Net], make: Make) -> ResidentStep:
    ours, optimization = trained(resident_optimization, make_module, make)
    expected, _ = trained(LeanOptimization, make_module, make)
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    assert isinstance(optimization, ResidentStep)
    return optimization


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MAKE)
def test_steps_and_states_have_the_bits_of_torch_s_own(name: str, dtype: torch.dtype) -> None:
    assert assert_same_bits(lambda: Net(dtype), MAKE[name])._lent


@pytest.mark.parametrize("name", ["momentum", "dampening", "nesterov"])
def test_so_they_have_where_the_kernel_rounds_otherwise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(momentum, "is_exact", lambda settings: False)
    monkeypatch.setattr(momentum, "step_at_once", None)
    assert assert_same_bits(Net, MAKE[name])._lent


@pytest.mark.parametrize("make_module", [Seldom, Turned])
@pytest.mark.parametrize("name", MAKE)
def test_so_they_have_where_gradients_are_missing_or_lie_otherwise(
    name: str, make_module: Callable[[], Net]
) -> None:
    assert_same_bits(make_module, MAKE[name])


@pytest.mark.parametrize("name", MAKE)
def test_so_they_have_where_parameters_are_frozen(name: str) -> None:
    def frozen() -> Net:
        module = Net()
        module.net[0].weight.requires_grad_(False)
        return module

    assert assert_same_bits(frozen, MAKE[name])._lent


@pytest.mark.parametrize("name", OTHERS)
def test_what_has_no_steps_here_is_left_to_the_optimizer(name: str) -> None:
    assert not assert_same_bits(Net, OTHERS[name])._lent


def test_parameters_of_several_types_are_left_to_the_optimizer() -> None:
    def mixed() -> Net:
        module = Net()
        module.net[3].to(torch.float64)
        module.net.insert(3, Cast())
        return module

    assert not assert_same_bits(mixed, MAKE["momentum"])._lent


class Cast(nn.Module):
    """Goes over to float64."""

    def forward(self, x: Tensor) -> Tensor:
        return x.double()


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_memory_stays_from_visit_to_visit(name: str) -> None:
    module = Net()
    optimizer = MAKE[name](module.parameters())
    optimization = resident_optimization(module, optimizer, LogRecorder(module))
    places = []
    for _ in range(2):
        optimizer.state = defaultdict(dict)
        optimization.take(torch.ones(5, 16), 0, passes_batch_idx=False)
        places.append([value.data_ptr() for own in optimizer.state.values() for value in own.values()])
    assert places[0] == places[1]


class Resetting(Net):
    """Exchanges a part of the optimizer's state amid a visit."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.part = name
        self.optimizer: Any = None

    def training_step(self, batch: Tensor) -> Any:
        weight = self.net[0].weight
        if batch[0, 0] > 0 and self.part in self.optimizer.state[weight]:
            self.optimizer.state[weight][self.part] = torch.full_like(weight, 0.5)
        if not self.optimizer.state[weight]:
            del self.optimizer.state[weight]
        return super().training_step(batch)


@pytest.mark.parametrize(("name", "part"), [("momentum", "momentum_buffer"), ("adam", "exp_avg")])
def test_an_optimizer_goes_on_with_a_state_that_was_exchanged(name: str, part: str) -> None:
    def noted(choose: Callable[..., LeanOptimization]) -> Callable[..., LeanOptimization]:
        def chosen(module: Resetting, optimizer: Optimizer, logs: LogRecorder) -> LeanOptimization:
            module.optimizer = optimizer
            return choose(module, optimizer, logs)

        return chosen

    ours, _ = trained(noted(resident_optimization), lambda: Resetting(part), MAKE[name])
    expected, _ = trained(noted(LeanOptimization), lambda: Resetting(part), MAKE[name])
    assert all(map(torch.equal, ours, expected))


def test_settings_may_change_amid_a_visit() -> None:
    class Changing(Net):
        group: Any = None

        def training_step(self, batch: Tensor) -> Any:
            if batch[0, 0] > 0:
                self.group["lr"] *= 0.5
                self.group["momentum"] = 0.5
            return super().training_step(batch)

    def noted(choose: Callable[..., LeanOptimization]) -> Callable[..., LeanOptimization]:
        def chosen(module: Changing, optimizer: Optimizer, logs: LogRecorder) -> LeanOptimization:
            module.group = optimizer.param_groups[0]
            return choose(module, optimizer, logs)

        return chosen

    ours, _ = trained(noted(resident_optimization), Changing, MAKE["momentum"])
    expected, _ = trained(noted(LeanOptimization), Changing, MAKE["momentum"])
    assert all(map(torch.equal, ours, expected))


def test_other_optimizers_take_the_steps_they_took() -> None:
    module = Net()
    rmsprop = torch.optim.RMSprop(module.parameters())
    assert type(resident_optimization(module, rmsprop, LogRecorder(module))) is LeanStep


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_fits_have_the_bits_of_the_general_loop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = Memo(), Memo()
    settings: dict[str, Any] = {"local_epochs": 2, "seed": 0}
    ours, _ = fit(FederatedStrategy(3, **settings), module=lambda: Classifier(MAKE[name]), logger=logs[0])
    monkeypatch.setattr(Known, "why_not_lean", "told so")
    general, _ = fit(FederatedStrategy(3, **settings), module=lambda: Classifier(MAKE[name]), logger=logs[1])
    assert_same_module(ours, general)
    assert logs[0].entries == logs[1].entries
