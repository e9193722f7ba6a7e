"""Manual optimization, several optimizers, accumulation and schedulers, against an ordinary fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, WeightAveraging
from torch import Tensor, nn

from fedlightning.strategy import FederatedStrategy
from tests.strategy.toys import Classifier, assert_same_module, assert_same_optimizer, fit, loader

UPDATES = ["averaged", "sequential"]


class Manual(Classifier):
    """Two optimizers, each with a scheduler, stepped by hand; one part toggled."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        first, second = self.optimizers()
        x, y = batch
        for optimizer in (first, second):
            with optimizer.toggle_model():
                loss = nn.functional.cross_entropy(self.net(x), y)
                optimizer.zero_grad()
                self.manual_backward(loss)
                self.clip_gradients(optimizer, gradient_clip_val=0.5, gradient_clip_algorithm="norm")
                optimizer.step()
        for scheduler in self.lr_schedulers():
            scheduler.step()
        self.log("loss", loss)

    def configure_optimizers(self) -> Any:
        optimizers = [
            torch.optim.Adam(self.net[:2].parameters(), lr=0.01),
            torch.optim.SGD(self.net[2:].parameters(), lr=0.1, momentum=0.9),
        ]
        schedulers = [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99) for optimizer in optimizers]
        return optimizers, schedulers


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("work", [{"local_steps": 1}, {"local_steps": 3}, {"local_epochs": 1}])
def test_manual_optimization_at_one_worker_is_an_ordinary_fit(update: Any, work: dict[str, Any]) -> None:
    plain, plain_run = fit(module=Manual)
    strategy = FederatedStrategy(1, update=update, optimizer_state="keep", **work)
    ours, run = fit(strategy, module=Manual)
    assert_same_module(plain, ours)
    rates = [[optimizer.param_groups[0]["lr"] for optimizer in r.optimizers] for r in (plain_run, run)]
    assert rates[0] == rates[1]
    assert run.global_step == len(strategy.history)


def test_an_optimizer_that_travels_is_that_of_an_ordinary_fit() -> None:
    plain, plain_run = fit(module=Manual)
    ours, run = fit(FederatedStrategy(1, update="sequential", local_steps=3), module=Manual)
    assert_same_module(plain, ours)
    for left, right in zip(plain_run.optimizers, run.optimizers, strict=True):
        assert_same_optimizer(left, right)


class ZeroesAfterStep(Classifier):
    """Steps by hand, and empties the gradients after a step rather than before the next."""

    def __init__(self) -> None:
        super().__init__(schedule=False)
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        self.manual_backward(nn.functional.cross_entropy(self.net(x), y))
        self.optimizers().step()
        self.optimizers().zero_grad()


@pytest.mark.parametrize("local_steps", [1, 3])
def test_a_pseudo_gradient_does_not_reach_steps_by_hand(local_steps: int) -> None:
    plain, _ = fit(module=ZeroesAfterStep)
    ours, _ = fit(
        FederatedStrategy(1, local_steps=local_steps, optimizer_state="keep"), module=ZeroesAfterStep
    )
    assert_same_module(plain, ours)


class AccumulatesByHand(Classifier):
    """Steps by hand after every second batch."""

    def __init__(self) -> None:
        super().__init__(schedule=False)
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        self.manual_backward(nn.functional.cross_entropy(self.net(x), y) / 2)
        if batch_idx % 2 == 1:
            self.optimizers().step()
            self.optimizers().zero_grad()


@pytest.mark.parametrize("work", [{"local_steps": 1}, {"local_steps": 3}, {"local_epochs": 1}])
def test_gradients_accumulated_by_hand_wait_for_the_next_visit_of_a_lone_worker(work: dict[str, Any]) -> None:
    plain, _ = fit(
        module=AccumulatesByHand, train=loader(28)
    )  # seven batches: one waits over the epoch's end
    ours, _ = fit(
        FederatedStrategy(1, optimizer_state="keep", **work), module=AccumulatesByHand, train=loader(28)
    )
    assert_same_module(plain, ours)


@pytest.mark.parametrize(("local_steps", "warnings"), [(1, 1), (2, 0)])
def test_gradients_that_a_visit_does_not_use_are_told_of_once(
    local_steps: int, warnings: int, recwarn: pytest.WarningsRecorder
) -> None:
    fit(FederatedStrategy(2, local_steps=local_steps), module=AccumulatesByHand, train=loader(32))
    told = [str(warning.message) for warning in recwarn if "no optimizer had stepped" in str(warning.message)]
    assert len(told) == warnings


@pytest.mark.parametrize("update", UPDATES)
def test_schedulers_stepped_by_hand_start_each_visit_from_the_round(update: Any) -> None:
    strategy = FederatedStrategy(3, update=update, local_steps=2, rounds_per_epoch=3)
    _, run = fit(strategy, module=Manual, max_epochs=2)
    # A round moves the schedule by its longest visit, however many workers took part.
    steps = sum(record.steps // len(record.workers) for record in strategy.history)
    assert run.lr_scheduler_configs[0].scheduler.last_epoch == steps
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 * 0.99**steps)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("work", [{"local_steps": 1}, {"local_epochs": 1}])
@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulated_batches_are_those_of_an_ordinary_fit(
    update: Any, work: dict[str, Any], accumulate: int
) -> None:
    def module() -> Classifier:
        return Classifier(schedule=False)

    plain, plain_run = fit(module=module, accumulate_grad_batches=accumulate)
    state = {} if "local_steps" in work else {"optimizer_state": "keep"}
    ours, run = fit(
        FederatedStrategy(1, update=update, **work, **state),
        module=module,
        accumulate_grad_batches=accumulate,
    )
    assert_same_module(plain, ours)
    assert run.accumulate_grad_batches == accumulate
    assert run.global_step == (plain_run.global_step if "local_steps" in work else 2)


@pytest.mark.parametrize("factors", [{0: 1, 1: 2, 2: 4}, {0: 4, 1: 1, 2: 2}], ids=["up", "down"])
def test_an_accumulation_schedule_means_local_batches(factors: dict[int, int]) -> None:
    def module() -> Classifier:
        return Classifier(schedule=False)

    def schedule() -> GradientAccumulationScheduler:
        return GradientAccumulationScheduler(factors)

    plain, _ = fit(module=module, callbacks=[schedule()], max_epochs=3)
    ours, _ = fit(
        FederatedStrategy(1, optimizer_state="keep"), module=module, callbacks=[schedule()], max_epochs=3
    )
    assert_same_module(plain, ours)


class Plateau(Classifier):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, patience=0, factor=0.5, threshold=10
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}


class OneCycle(Classifier):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.1, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def test_a_plateau_lowers_the_workers_rate() -> None:
    _, run = fit(FederatedStrategy(2), module=Plateau, max_epochs=4)
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**4)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_one_cycle_spans_the_rounds(accumulate: int) -> None:
    _, run = fit(
        FederatedStrategy(2, rounds_per_epoch=5),
        module=OneCycle,
        max_epochs=2,
        accumulate_grad_batches=accumulate,
    )
    assert run.lr_scheduler_configs[0].scheduler.total_steps == 10
    assert run.lr_scheduler_configs[0].scheduler.last_epoch == 10


def test_lbfgs_works_where_a_visit_has_several_steps() -> None:
    def module() -> Classifier:
        return Classifier(lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3), schedule=False, dropout=0.0)

    plain, _ = fit(module=module)
    ours, _ = fit(FederatedStrategy(1, optimizer_state="keep"), module=module)
    assert_same_module(plain, ours)


class OwnStep(Classifier):
    """Raises the rate after each step, and steps along every second batch of an epoch only."""

    def __init__(self) -> None:
        super().__init__(
            lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9), schedule=False
        )
        self.calls = 0

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any) -> None:
        self.calls += 1
        if batch_idx % 2:
            optimizer_closure()
            return
        optimizer.step(closure=optimizer_closure)
        for group in optimizer.param_groups:
            group["lr"] *= 1.1


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("work", [{"local_steps": 1}, {"local_steps": 3}, {"local_epochs": 1}])
def test_a_modules_own_step_is_taken_at_each_local_step(update: Any, work: dict[str, Any]) -> None:
    plain, plain_run = fit(module=OwnStep)
    ours, run = fit(FederatedStrategy(1, update=update, optimizer_state="keep", **work), module=OwnStep)
    assert_same_module(plain, ours)
    assert ours.calls == plain.calls == 16
    rates = [r.optimizers[0].param_groups[0]["lr"] for r in (plain_run, run)]
    assert rates[0] == rates[1]
    assert "optimizer_step" not in vars(ours)


@pytest.mark.parametrize("update", UPDATES)
def test_a_modules_own_step_at_several_workers(update: Any) -> None:
    strategy = FederatedStrategy(4, update=update)
    callback = WeightAveraging()  # copies the module in the midst of the fit
    module, run = fit(strategy, module=OwnStep, callbacks=[callback])
    assert module.calls == sum(record.steps for record in strategy.history)
    # A round moves the rate by its longest visit, of two batches at each worker: one step.
    rounds = len(strategy.history)
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 * 1.1**rounds)
