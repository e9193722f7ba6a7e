from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch.profilers import SimpleProfiler

from fedlightning.callbacks import FederatedCallback
from fedlightning.strategy import FederatedStrategy, RoundFailed
from tests.strategy.toys import Classifier, assert_same_module, fit

PATHS = [{"local_steps": 1}, {"local_steps": 2}]


class Tracer(FederatedCallback):
    """Writes down every call, and whether the parameters have changed since the one before."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.moved: list[str] = []
        self.told: list[Any] = []
        self._parameters: torch.Tensor | None = None

    def _note(self, module: Any, hook: str, *what: Any) -> None:
        self.calls.append((hook, *what))
        now = torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()
        if self._parameters is not None and not torch.equal(now, self._parameters):
            self.moved.append(hook)
        self._parameters = now

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        self._note(module, "batch start")

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        self._note(module, "batch end")

    def on_round_start(self, trainer: Any, module: Any, plan: Any) -> None:
        self._note(module, "round start", plan.round)

    def on_round_end(self, trainer: Any, module: Any, record: Any) -> None:
        self._note(module, "round end", record.round)
        self.told.append(record)

    def on_worker_start(self, trainer: Any, module: Any, visit: Any) -> None:
        self._note(module, "worker start", visit.round, visit.worker)

    def on_worker_end(self, trainer: Any, module: Any, visit: Any) -> None:
        self._note(module, "worker end", visit.round, visit.worker)
        self.told.append(visit)


def run(update: str, settings: dict[str, Any], tracer: Tracer, **more: Any) -> tuple[Any, Any]:
    strategy = FederatedStrategy(3, update=update, rounds_per_epoch=2, seed=0, **settings)
    return fit(strategy, callbacks=[tracer], max_epochs=1, **more)


@pytest.mark.parametrize("settings", PATHS)
@pytest.mark.parametrize("update", ["averaged", "sequential"])
def test_the_hooks_nest_in_the_batch_in_worker_order(update: str, settings: dict[str, Any]) -> None:
    tracer = Tracer()
    _, trainer = run(update, settings, tracer)
    expected: list[tuple[Any, ...]] = []
    for record in trainer.strategy.history:
        number = record.round
        expected += [("batch start",), ("round start", number)]
        for worker in record.workers:
            expected += [("worker start", number, worker), ("worker end", number, worker)]
        expected += [("round end", number), ("batch end",)]
    assert tracer.calls == expected
    assert len(trainer.strategy.history[0].workers) == (3 if update == "averaged" else 1)
    assert tracer.moved == ["round end"] * 2, "the global module changes between the last visit and the end"


@pytest.mark.parametrize("settings", PATHS)
def test_a_visit_says_what_left_the_worker(settings: dict[str, Any]) -> None:
    tracer = Tracer()
    _, trainer = run("averaged", settings, tracer)
    first, second, third, record = tracer.told[:4]
    assert record == trainer.strategy.history[0]
    visits = (first, second, third)
    assert trainer.strategy.history.visits[:3] == visits
    samples = sum(visit.samples for visit in visits)
    for name in ("train/loss", "train/acc"):
        assert all(name in visit.metrics for visit in visits)
    mean = sum(visit.loss * visit.samples for visit in visits) / samples
    assert record.loss == pytest.approx(mean, rel=1e-5)
    assert sum(visit.bytes_up for visit in visits) == record.bytes_up
    assert sum(visit.bytes_down for visit in visits) == record.bytes_down
    assert sum(visit.steps for visit in visits) == record.steps
    losses = torch.tensor([visit.metrics["train/loss"] for visit in visits])
    assert record.spread["train/loss_min"] == pytest.approx(losses.min().item())
    assert record.spread["train/loss_std"] == pytest.approx(losses.std(unbiased=False).item())
    assert record.spread["train/loss_p10"] == pytest.approx(losses.quantile(0.1).item())


@pytest.mark.parametrize("settings", PATHS)
@pytest.mark.parametrize("update", ["averaged", "sequential"])
def test_listening_changes_no_bit(update: str, settings: dict[str, Any]) -> None:
    heard, _ = run(update, settings, Tracer())
    strategy = FederatedStrategy(3, update=update, rounds_per_epoch=2, seed=0, **settings)
    assert_same_module(heard, fit(strategy, max_epochs=1)[0])


def test_an_accumulated_round_ends_without_a_step() -> None:
    tracer = Tracer()
    run("averaged", {"local_steps": 1}, tracer, accumulate_grad_batches=2)
    assert [call[0] for call in tracer.calls if "end" in call[0] and "worker" not in call[0]] == [
        "round end",
        "batch end",
    ] * 2
    assert tracer.moved == ["round end"]


def test_a_round_that_fails_has_no_end() -> None:
    class Fails(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.trainer.strategy.current_plan.round == 1:
                raise ArithmeticError("no")
            return super().training_step(batch, batch_idx)

    tracer = Tracer()
    with pytest.raises(RoundFailed):
        run("averaged", {}, tracer, module=Fails)
    assert [call for call in tracer.calls if call[0] in ("round start", "round end")] == [
        ("round start", 0),
        ("round end", 0),
        ("round start", 1),
    ]


def test_what_a_hook_logs_is_logged() -> None:
    class Logs(FederatedCallback):
        def on_round_end(self, trainer: Any, pl_module: Any, record: Any) -> None:
            pl_module.log("round/number", float(record.round), batch_size=1)

    strategy = FederatedStrategy(2, rounds_per_epoch=3)
    for settings in PATHS:
        strategy = FederatedStrategy(2, rounds_per_epoch=3, **settings)
        _, trainer = fit(strategy, callbacks=[Logs()], max_epochs=1)
        assert trainer.callback_metrics["round/number"] == 2


def test_the_profiler_times_the_hooks() -> None:
    profiler = SimpleProfiler()
    fit(FederatedStrategy(2), callbacks=[Tracer()], max_epochs=1, profiler=profiler)
    assert "[Callback]Tracer.on_round_end" in profiler.recorded_durations
