"""Federated averaging against a loop written out by hand, and what is logged against pooled values."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, MetricCollection, RunningMean
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score

from fedlightning.data import Explicit
from fedlightning.strategy import FederatedStrategy, RoundFailed
from tests.strategy.toys import Classifier, Memo, assert_same_module, fit, samples

PARTS = [range(6), range(6, 14), range(14, 30)]
SGD = partial(torch.optim.SGD, lr=0.1)


class Smooth(Classifier):
    """Without batch norm, so that workers with one sample in a batch can train."""

    def __init__(self, make: Any, **settings: Any) -> None:
        super().__init__(make, schedule=False, **settings)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def ordered(count: int = 30, batch_size: int = 4) -> DataLoader[Any]:
    return DataLoader(samples(count), batch_size=batch_size, shuffle=False)


def fed_avg_by_hand(net: nn.Module, rounds: int, epochs: int) -> nn.Module:
    """McMahan et al. 2017, Algorithm 1, with every worker in every round and plain SGD."""
    x, y = samples().tensors
    for _ in range(rounds):
        locals_ = []
        for part in PARTS:
            local = copy.deepcopy(net)
            optimizer = SGD(local.parameters())
            for _ in range(epochs):
                for start in range(part.start, part.stop, 4):
                    rows = slice(start, min(start + 4, part.stop))
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(local(x[rows]), y[rows]).backward()
                    optimizer.step()
            locals_.append(local.state_dict())
        average = {
            name: sum(len(p) / 30 * state[name].double() for p, state in zip(PARTS, locals_, strict=True))
            for name in locals_[0]
        }
        net.load_state_dict({name: value.float() for name, value in average.items()})
    return net


@pytest.mark.parametrize("epochs", [1, 2])
def test_fed_avg_equals_the_algorithm_written_out(epochs: int) -> None:
    def module() -> Classifier:
        torch.manual_seed(0)
        return Smooth(SGD, dropout=0.0)

    expected = fed_avg_by_hand(module().net, rounds=3, epochs=epochs)
    strategy = FederatedStrategy(workers=3, partition=Explicit(PARTS), local_epochs=epochs)
    ours, run = fit(strategy, module=module(), train=ordered(), max_epochs=3)
    assert run.global_step == 3
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(ours.net.state_dict()[name].float(), value, rtol=0, atol=2e-6)


def test_server_sgd_with_rate_one_is_plain_averaging() -> None:
    def run(server: Any) -> nn.Module:
        torch.manual_seed(0)
        strategy = FederatedStrategy(workers=3, partition=Explicit(PARTS), server_optimizer=server)
        return fit(strategy, module=Smooth(SGD, dropout=0.0), train=ordered())[0]

    for left, right in zip(
        run(None).parameters(), run(partial(torch.optim.SGD, lr=1.0)).parameters(), strict=True
    ):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-6)


def test_a_server_optimizer_keeps_its_state_over_rounds() -> None:
    strategy = FederatedStrategy(workers=2, server_optimizer=partial(torch.optim.SGD, lr=0.5, momentum=0.9))
    fit(strategy, max_epochs=3)
    optimizer = strategy.server_optimizer
    assert optimizer is not None
    assert all("momentum_buffer" in state for state in optimizer.state.values())


@pytest.mark.parametrize(("optimizer_state", "empty"), [("reset", True), ("keep", True), ("travel", False)])
def test_optimizer_state(optimizer_state: Any, empty: bool) -> None:
    strategy = FederatedStrategy(workers=2, update="sequential", optimizer_state=optimizer_state)
    _, run = fit(strategy)
    assert (len(run.optimizers[0].state) == 0) == empty


def test_kept_optimizer_states_are_each_workers_own() -> None:
    """Two workers that keep their momentum learn what two separate optimizers would."""
    data = samples(16)

    def module() -> Classifier:
        torch.manual_seed(0)
        return Smooth(partial(torch.optim.SGD, lr=0.1, momentum=0.9), dropout=0.0)

    by_hand = module().net
    optimizers = [torch.optim.SGD(by_hand.parameters(), lr=0.1, momentum=0.9) for _ in range(2)]
    x, y = data.tensors
    for _ in range(3):
        for optimizer, start in zip(optimizers, (0, 8), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(by_hand(x[start : start + 8]), y[start : start + 8]).backward()
            optimizer.step()

    strategy = FederatedStrategy(
        workers=2,
        partition=Explicit([range(8), range(8, 16)]),
        update="sequential",
        optimizer_state="keep",
    )
    ours, _ = fit(strategy, module=module(), train=DataLoader(data, batch_size=8), max_epochs=3)
    assert_same_module(by_hand, ours.net)


def test_schedules_run_over_rounds() -> None:
    strategy = FederatedStrategy(workers=2, rounds_per_epoch=2)
    _, run = fit(strategy, max_epochs=3)
    # StepLR(step_size=2, gamma=0.9) after six rounds.
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 * 0.9**3)


def test_integer_buffers_and_running_statistics_are_averaged() -> None:
    strategy = FederatedStrategy(workers=3, partition=Explicit(PARTS))
    module, _ = fit(strategy, train=ordered(), max_epochs=1)
    batch_norm = module.net[1]
    # Two, two and four local steps, weighted by 6, 8 and 16 samples: 3.07.
    assert batch_norm.num_batches_tracked.item() == 3
    assert batch_norm.num_batches_tracked.dtype == torch.int64
    assert not torch.equal(batch_norm.running_mean, torch.zeros(8))


class Metrics(L.LightningModule):
    """Logs metrics of every kind of state while training with a learning rate of zero."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3)
        self.auroc = MulticlassAUROC(3)
        self.mean = MeanMetric()
        self.group = MetricCollection([MulticlassAccuracy(3), MulticlassF1Score(3)], prefix="group/")

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        probabilities = self.net(x).softmax(-1)
        loss = nn.functional.nll_loss(probabilities.log(), y)
        self.auroc.update(probabilities, y)
        self.mean.update(loss, weight=len(y))
        self.group.update(probabilities, y)
        self.log("auroc", self.auroc, on_step=False, on_epoch=True)
        self.log("mean", self.mean, on_step=False, on_epoch=True)
        self.log_dict(self.group, on_step=False, on_epoch=True)
        self.log("loss", loss, on_step=False, on_epoch=True)
        self.log("count", float(len(y)), reduce_fx="sum", on_step=False, on_epoch=True)
        self.log("largest", float(y.max()), reduce_fx="max", on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.parametrize("update", ["averaged", "sequential"])
@pytest.mark.parametrize("work", [{"local_epochs": 1}, {"local_steps": 1}, {"local_steps": 2}])
def test_metrics_over_uneven_workers_equal_the_pooled_values(update: Any, work: dict[str, Any]) -> None:
    def run(strategy: Any) -> dict[str, float]:
        torch.manual_seed(0)
        return fit(strategy, module=Metrics(), train=ordered(), max_epochs=1)[1].callback_metrics

    pooled = run("auto")
    ours = run(FederatedStrategy(workers=3, partition=Explicit(PARTS), update=update, **work))
    # With averaged rounds by steps, small workers are seen again while large ones go on.
    repeats = update == "averaged" and "local_steps" in work
    names = ["largest"] if repeats else list(pooled)
    assert set(ours) >= set(pooled)
    for name in names:
        assert float(ours[name]) == pytest.approx(float(pooled[name]), abs=1e-6), name


class Windowed(Smooth):
    """Watches the last three batches."""

    def __init__(self) -> None:
        super().__init__(SGD)
        self.recent = RunningMean(window=3)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.recent.update(batch[0].sum())
        self.log("recent", self.recent, on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("work", [{}, {"local_steps": 1}])
def test_a_window_over_several_workers_is_refused(work: dict[str, Any]) -> None:
    with pytest.raises(RoundFailed, match="recent is a RunningMean over the last 3 updates"):
        fit(FederatedStrategy(2, **work), module=Windowed)
    plain, federated = fit(module=Windowed)[1], fit(FederatedStrategy(1, **work), module=Windowed)[1]
    assert federated.callback_metrics["recent"] == plain.callback_metrics["recent"]


def test_a_step_value_of_a_metric_is_that_of_the_whole_round() -> None:
    log = Memo()
    strategy = FederatedStrategy(workers=3, partition=Explicit(PARTS), local_epochs=1)
    module, _ = fit(strategy, train=ordered(), max_epochs=1, logger=log)
    values = {name: value for _, entry in log.entries for name, value in entry.items()}
    # One round in the epoch: the round's accuracy is the epoch's.
    assert values["train/acc_step"] == values["train/acc_epoch"]
    assert module.train_accuracy._update_count == 0
