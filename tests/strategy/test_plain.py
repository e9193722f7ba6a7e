"""One virtual worker with one local step: nothing that a user can see differs from an ordinary fit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fedlightning.callbacks import FederatedCallback
from fedlightning.data import FederatedDataLoader, FederatedDataset
from fedlightning.strategy import FederatedStrategy, NotFederatable, RoundFailed
from fedlightning.workers import VirtualWorker
from tests.strategy.toys import (
    Classifier,
    assert_same_module,
    assert_same_optimizer,
    fit,
    loader,
    samples,
    trainer,
)

both_updates = pytest.mark.parametrize("update", ["averaged", "sequential"])

HOOKS = (
    "on_train_start",
    "on_train_epoch_start",
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
    "on_train_batch_start",
    "training_step",
    "on_before_zero_grad",
    "optimizer_zero_grad",
    "on_before_backward",
    "backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "configure_gradient_clipping",
    "optimizer_step",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_train_end",
)


def alone(update: Any = "sequential", **settings: Any) -> FederatedStrategy:
    return FederatedStrategy(1, update=update, local_steps=1, **settings)


class Traced(Classifier):
    """Notes every hook that is called, and what numbers it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.trace: list[Any] = []

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return found if name not in HOOKS else partial(self._noted, name, found)

    def _noted(self, name: str, hook: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.trace.append((name, numbers_in((args, kwargs))))
        return hook(*args, **kwargs)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return {"loss": super().training_step(batch, batch_idx), "rows": len(batch[0])}

    # Overridden, or Lightning does not call all of them.
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert outputs["rows"] == len(batch[0])


def numbers_in(value: Any) -> Any:
    """Return the tensors and plain values inside as something to compare."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [numbers_in(part) for part in value]
    if isinstance(value, dict):
        return {name: numbers_in(part) for name, part in value.items()}
    return value if isinstance(value, int | float | str | None) else type(value).__name__


@both_updates
def test_hooks_come_in_the_same_order_with_the_same_batches(update: Any) -> None:
    settings: dict[str, Any] = {"gradient_clip_val": 0.1, "accumulate_grad_batches": 2, "max_epochs": 2}
    plain, _ = fit(module=Traced, **settings)
    ours, _ = fit(alone(update), module=Traced, **settings)
    assert isinstance(plain, Traced)
    assert isinstance(ours, Traced)
    assert {name for name, _ in ours.trace} == {*HOOKS}
    assert ours.trace == plain.trace


class ReadsItself(Classifier):
    """Takes batches from the loader itself, two for each step."""

    def training_step(self, dataloader_iter: Iterator[Any]) -> Tensor:  # type: ignore[override]  # as documented
        losses = []
        for _ in range(2):
            (x, y), _, _ = next(dataloader_iter)
            losses.append(nn.functional.cross_entropy(self.net(x), y))
        return torch.stack(losses).mean()


@both_updates
def test_a_step_that_reads_the_loader_itself(update: Any) -> None:
    module = partial(ReadsItself, schedule=False)
    plain, plain_run = fit(module=module, train=loader(28))
    strategy = alone(update)
    ours, run = fit(strategy, module=module, train=loader(28))
    assert_same_module(plain, ours)
    assert run.global_step == plain_run.global_step == len(strategy.history) == 6


def test_data_that_lies_at_the_worker_is_not_handed_out() -> None:
    bob = VirtualWorker(id="bob")
    data = FederatedDataLoader(FederatedDataset.from_dataset(samples(), [bob]), batch_size=4)
    with pytest.raises(NotFederatable, match="takes a dataloader_iter"):
        fit(alone(), module=partial(ReadsItself, schedule=False), train=data)


class ByHand(Classifier):
    """Steps two optimizers by hand, one of them every other batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:  # type: ignore[override]  # no loss
        first, second = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        first.zero_grad()
        self.manual_backward(loss)
        first.step()
        if batch_idx % 2:
            second.step()
            second.zero_grad()

    def configure_optimizers(self) -> Any:
        first = torch.optim.SGD(self.net[:2].parameters(), lr=0.05, momentum=0.9)
        return first, torch.optim.Adam(self.net[2:].parameters(), lr=0.01)


@both_updates
def test_optimizers_stepped_by_hand_keep_their_state_and_count_as_in_an_ordinary_fit(update: Any) -> None:
    plain, plain_run = fit(module=ByHand)
    ours, run = fit(alone(update), module=ByHand)
    assert_same_module(plain, ours)
    for one, other in zip(plain_run.optimizers, run.optimizers, strict=True):
        assert_same_optimizer(one, other)
    assert run.global_step == plain_run.global_step == 24
    assert run.callback_metrics == plain_run.callback_metrics


class Fails(Classifier):
    """Raises in the third batch, in its step or in its backward pass, after changing its buffers."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.before: dict[str, Tensor] = {}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.before = copy.deepcopy(self.state_dict())

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if batch_idx == 2 and self.where == "step":
            raise KeyError("the scanner is broken")
        return loss

    def on_after_backward(self) -> None:
        if self.trainer.global_step == 2 and self.where == "backward":
            raise KeyError("the scanner is broken")


class FailsByHand(ByHand):
    """Raises in the third batch, after its optimizers have stepped."""

    before: dict[str, Tensor]
    states: list[dict[str, Any]]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.before = copy.deepcopy(self.state_dict())
        self.states = [copy.deepcopy(optimizer.state_dict()) for optimizer in self.trainer.optimizers]

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:  # type: ignore[override]  # no loss
        super().training_step(batch, batch_idx)
        if batch_idx == 2:
            raise KeyError("the scanner is broken")


@pytest.mark.parametrize(
    "module",
    [partial(Fails, "step"), partial(Fails, "backward"), FailsByHand],
    ids=["step", "backward", "hand"],
)
def test_a_step_that_fails_is_undone(module: Any) -> None:
    strategy, made = alone(), module()
    with pytest.raises(RoundFailed, match=r"round 2.*the scanner is broken") as caught:
        fit(strategy, module=made)
    assert isinstance(caught.value, KeyError)
    assert len(strategy.history) == 2
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, made.before[name]), name
    if isinstance(made, FailsByHand):
        (state,) = (optimizer.state_dict()["state"] for optimizer in made.trainer.optimizers[1:])
        assert torch.equal(state[0]["exp_avg"], made.states[1]["state"][0]["exp_avg"])


def test_errors_of_log_are_lightnings_own() -> None:
    class LogsNothing(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]  # no loss
            self.log("loss", None)

    with pytest.raises(ValueError, match=r"self.log\(loss, None\)` was called"):
        fit(alone(), module=LogsNothing)


def test_a_step_without_a_loss_is_lightnings_own_error() -> None:
    class Forgets(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"accuracy": 1.0}

    with pytest.raises(MisconfigurationException, match="'loss' key needs to be present"):
        fit(alone(), module=Forgets)


def test_what_is_logged_is_in_the_history_and_told_to_callbacks() -> None:
    class Listens(FederatedCallback):
        def __init__(self) -> None:
            self.heard: list[Any] = []

        def on_round_start(self, trainer: Any, pl_module: Any, plan: Any) -> None:
            self.heard.append(("start", plan.round, trainer.global_step))

        def on_round_end(self, trainer: Any, pl_module: Any, record: Any) -> None:
            # The module holds the round's result by then: its optimizer has stepped.
            self.heard.append(("end", record.round, len(trainer.optimizers[0].state)))
            assert record.metrics["train/loss"] == pytest.approx(record.loss)
            # The module goes and comes; with it come the loss, and of each value its name, weight and number.
            assert record.bytes_up - record.bytes_down == 4 + len("train/losstrain/idx") + 2 * (8 + 4)

    listens = Listens()
    fit(alone(), callbacks=[listens], limit_train_batches=2, max_epochs=1)
    states = len(list(Classifier().parameters()))
    assert listens.heard == [("start", 0, 0), ("end", 0, states), ("start", 1, 1), ("end", 1, states)]


def test_the_trainer_has_the_users_loader() -> None:
    train = loader(30)
    _, run = fit(alone(), train=train)
    held: Any = run.train_dataloader
    assert isinstance(held, DataLoader)
    assert held == train
    assert hash(held) == hash(train)
    assert held != loader(30)
    assert held.batch_size == 4
    assert len(held) == 8
    with pytest.raises(TypeError, match="cannot become"):
        held.__class__ = list


@pytest.mark.parametrize("work", [{"local_steps": 1}, {"local_epochs": 1}])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_trainer_can_be_pickled_after_a_fit(workers: int, work: dict[str, Any]) -> None:
    strategy = FederatedStrategy(workers, **work)
    module, run = fit(strategy, module=partial(Classifier, partial(torch.optim.SGD, lr=0.1)))
    again = pickle.loads(pickle.dumps(run))
    assert_same_module(again.lightning_module, module)
    assert len(again.strategy.history) == len(strategy.history)
    with pytest.raises(RuntimeError, match="there is no federation before"):
        _ = again.strategy.federation


class Counts:
    """Batches of a loader that keeps its own place."""

    def __init__(self) -> None:
        self.place = 0

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[Any]:
        for place in range(self.place, 8):
            self.place = place
            yield [torch.full((2, 4), float(self.place)), torch.zeros(2, dtype=torch.long)]
        self.place = 0

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"] + 1


def states_of_loaders(path: Path) -> Any:
    saved = torch.load(path, weights_only=True)
    return saved["loops"]["fit_loop"]["state_dict"].get("combined_loader")


@pytest.mark.parametrize("make", [Counts, partial(loader, 32)], ids=["keeps its place", "does not"])
def test_a_fit_goes_on_within_an_epoch(make: Callable[[], Any], tmp_path: Path) -> None:
    whole, _ = fit(alone(), train=make(), max_epochs=1)
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=3, filename="{step}")
    settings: dict[str, Any] = {"callbacks": [saver], "enable_checkpointing": True}
    fit(alone(), train=make(), max_steps=3, **settings)
    path = tmp_path / "step=3.ckpt"
    assert states_of_loaders(path) == ([{"place": 2}] if make is Counts else None)

    resumed, run = Classifier(), trainer(alone(), max_epochs=1)
    run.fit(resumed, make(), loader(12, shuffle=False), ckpt_path=str(path))
    assert run.global_step == 8
    assert_same_module(whole, resumed)


def test_the_devices_that_the_trainer_chose_are_known_before_a_fit() -> None:
    strategy = alone()
    run = trainer(strategy)
    assert run.device_ids == [0]
    strategy.parallel_devices = [torch.device("cuda", 2)]
    assert strategy.root_device == torch.device("cuda", 2)
    assert run.device_ids == [2]


def test_loaders_that_are_loaded_outside_of_a_fit_stay_as_they_are() -> None:
    run, module, train = trainer(alone()), Classifier(), loader(30)
    run.strategy.connect(module)
    run.state.stage = L.pytorch.trainer.states.RunningStage.TRAINING
    assert run.strategy.process_dataloader(train) is train


def test_weights_are_saved_without_a_trainer_that_fits(tmp_path: Path) -> None:
    run = trainer(alone())
    run.strategy.connect(Classifier())
    run.save_checkpoint(tmp_path / "weights.ckpt")
    assert "federation" not in torch.load(tmp_path / "weights.ckpt", weights_only=True)


@both_updates
def test_what_is_left_at_its_default_does_not_stand_in_the_way(update: Any) -> None:
    assert alone(update).settings.plain
    assert not alone(update, compile=True).settings.plain


def test_a_trainer_that_has_fitted_nothing_yet_can_be_pickled() -> None:
    run = pickle.loads(pickle.dumps(trainer(alone(seed=5))))
    run.fit(Classifier(), loader())
    assert run.strategy.settings.seed == 5
    assert run.state.finished
