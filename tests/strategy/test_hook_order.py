"""Every hook of module, DataModule and callbacks is called when an ordinary fit calls it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.core.hooks import CheckpointHooks, DataHooks, ModelHooks

from fedlightning.strategy import FederatedStrategy
from fedlightning.workers import VirtualWorker
from tests.strategy.toys import Classifier, loader, trainer


def hooks_of(*kinds: type) -> set[str]:
    """Return the names of what some classes define."""
    return {name for kind in kinds for name in vars(kind) if not name.startswith("_")}


LOADERS = {"train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader"}
TRANSFER = {"on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"}
OF_A_BATCH = {"on_train_batch_start", "on_train_batch_end", "lr_scheduler_step"}
OF_A_STEP = {
    "optimizer_step",
    "training_step",
    "backward",
    "on_before_backward",
    "on_after_backward",
    "on_before_zero_grad",
    "optimizer_zero_grad",
    "on_before_optimizer_step",
    "configure_gradient_clipping",
}
OF_MODULES = hooks_of(ModelHooks, CheckpointHooks) | OF_A_BATCH | OF_A_STEP
OF_MODULES |= {"validation_step", "configure_optimizers", "configure_callbacks"}
OF_MODULES -= {"configure_sharded_model"}  # deprecated, and refused beside configure_model
OF_DATA = hooks_of(DataHooks) - LOADERS
OF_CALLBACKS = hooks_of(L.Callback) - {"state_key", "state_dict", "load_state_dict"}
Trace = list[str]


class Data(L.LightningDataModule):
    def train_dataloader(self) -> Any:
        return loader(10)

    def val_dataloader(self) -> Any:
        return loader(6, shuffle=False)


def noted(base: type, hooks: set[str], owner: str, trace: Trace) -> type:
    """Return a class that writes each of its hooks down, and then does what ``base`` does."""

    def noting(hook: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            trace.append(f"{owner}.{hook}")
            return original(self, *args, **kwargs)

        return call

    return type(owner, (base,), {hook: noting(hook, getattr(base, hook)) for hook in sorted(hooks)})


def trace_of(strategy: Any, *, transfers_in: str = "data") -> Trace:
    """Fit for two epochs and return the hooks that were called, in order."""
    trace: Trace = []
    in_module = OF_MODULES | (TRANSFER if transfers_in == "module" else set())
    in_data = OF_DATA - (set() if transfers_in == "data" else TRANSFER)
    module = noted(Classifier, in_module, "module", trace)
    data = noted(Data, in_data, "data", trace)
    callback = noted(L.Callback, OF_CALLBACKS, "callback", trace)
    L.seed_everything(3, verbose=False)
    run = trainer(strategy, callbacks=[callback()], num_sanity_val_steps=1)
    run.fit(module(), datamodule=data())
    return trace


@lru_cache
def ordinary(transfers_in: str = "data") -> tuple[str, ...]:
    return tuple(trace_of("auto", transfers_in=transfers_in))


def without(trace: Any, *hooks: set[str]) -> Trace:
    return [entry for entry in trace if entry.partition(".")[2] not in set().union(*hooks)]


def test_an_ordinary_fit_calls_what_is_looked_for() -> None:
    called = {entry.partition(".")[2] for entry in ordinary()}
    assert called >= OF_A_BATCH | OF_A_STEP | TRANSFER | {"setup", "teardown", "on_validation_epoch_end"}


@pytest.mark.parametrize("transfers_in", ["module", "data"])
@pytest.mark.parametrize("update", ["averaged", "sequential"])
def test_the_hooks_of_one_virtual_worker_with_one_step_are_as_ever(update: Any, transfers_in: str) -> None:
    trace = trace_of(FederatedStrategy(1, update=update, local_steps=1), transfers_in=transfers_in)
    assert trace == list(ordinary(transfers_in))


@pytest.mark.parametrize("transfers_in", ["module", "data"])
@pytest.mark.parametrize("update", ["averaged", "sequential"])
def test_with_gradients_all_but_what_a_worker_does_is_as_ever(update: Any, transfers_in: str) -> None:
    bob = VirtualWorker(id="bob")  # one that the user brings, so that its batches stay with it
    trace = trace_of(FederatedStrategy([bob], update=update, local_steps=1), transfers_in=transfers_in)
    at_worker = [TRANSFER, {"backward"}]
    assert without(trace, *at_worker) == without(ordinary(transfers_in), *at_worker)
    # There, a batch is transferred, trained on, and gradients are computed at once.
    steps = [number for number, entry in enumerate(trace) if entry == "module.training_step"]
    for step in steps:
        transfer = [f"{transfers_in}.{hook}" for hook in _in_order_of_transfer()]
        assert trace[step - 3 : step + 2] == [*transfer, "module.training_step", "module.backward"]


@pytest.mark.parametrize("transfers_in", ["module", "data"])
@pytest.mark.parametrize("update", ["averaged", "sequential"])
def test_local_steps_call_their_hooks_in_the_usual_order(update: Any, transfers_in: str) -> None:
    strategy = FederatedStrategy(1, update=update, optimizer_state="keep")
    trace = without(trace_of(strategy, transfers_in=transfers_in), OF_A_BATCH)
    # After its local steps, the round itself zeroes gradients once more.
    of_round = ["callback.on_before_zero_grad", "module.on_before_zero_grad", "module.optimizer_zero_grad"]
    expected = without(ordinary(transfers_in), OF_A_BATCH)
    last = _last_steps(expected)
    for position in reversed(last):
        expected[position:position] = of_round
    assert trace == expected


def _last_steps(trace: Trace) -> list[int]:
    """Return the positions after the last local step of each epoch."""
    ends = [n for n, entry in enumerate(trace) if entry == "callback.on_validation_start"]
    found = []
    for end in ends:
        before = [n for n in range(end) if trace[n] == "module.configure_gradient_clipping"]
        if before and before[-1] + 1 not in found:
            found.append(before[-1] + 1)
    return found


@pytest.mark.parametrize("work", [{"local_steps": 1}, {"local_steps": 2}, {}])
@pytest.mark.parametrize("update", ["averaged", "sequential"])
def test_around_the_rounds_of_four_workers_all_is_as_ever(update: Any, work: dict[str, Any]) -> None:
    trace = trace_of(FederatedStrategy(4, update=update, **work))
    of_rounds = [OF_A_BATCH, OF_A_STEP, TRANSFER]
    assert without(trace, *of_rounds) == without(ordinary(), *of_rounds)
    # And each round is a batch of the Trainer's loop.
    whole = without(trace, OF_A_STEP, TRANSFER)
    starts = [n for n, entry in enumerate(whole) if entry == "callback.on_train_batch_start"]
    for start in starts:
        assert whole[start : start + 5] == [
            "callback.on_train_batch_start",
            "module.on_train_batch_start",
            "module.lr_scheduler_step",
            "callback.on_train_batch_end",
            "module.on_train_batch_end",
        ]


def _in_order_of_transfer() -> list[str]:
    return ["on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"]
