"""The private calls of Lightning that local work needs, in one place: batches, hooks, a Trainer to stand in.

``tests/local/test_lightning_calls.py`` fails clearly when they move.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import CodeType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.trainer import call
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning_utilities.core.imports import RequirementCache
from torch.optim import Optimizer


def transfer_batch(module: pl.LightningModule, batch: Any, dataloader_idx: int = 0) -> Any:
    """Bring a batch to the module's device the way the Trainer does, with all the hooks around it.

    Runs the precision plugin's input conversion and the module's (or DataModule's)
    ``on_before_batch_transfer``, ``transfer_batch_to_device`` and ``on_after_batch_transfer``.
    """
    batch = module.trainer.precision_plugin.convert_input(batch)
    batch = module._on_before_batch_transfer(batch, dataloader_idx=dataloader_idx)
    return module._apply_batch_transfer_handler(batch, device=module.device, dataloader_idx=dataloader_idx)


def step_arguments(step: Callable[..., Any], batch_idx: int) -> tuple[int, ...]:
    """Return what a validation step takes after the batch: its number, and that of its loader, or neither."""
    numbers = (batch_idx,) if is_param_in_hook_signature(step, "batch_idx", min_args=2) else ()
    takes_loader = is_param_in_hook_signature(step, "dataloader_idx", explicit=True)
    return (*numbers, 0) if takes_loader else numbers


def zero_gradients(module: pl.LightningModule, optimizer: Optimizer, batch_idx: int) -> None:
    """Zero the gradients the way Lightning's automatic optimization does, with all the hooks around it."""
    call._call_callback_hooks(module.trainer, "on_before_zero_grad", optimizer)
    module.on_before_zero_grad(optimizer)
    module.optimizer_zero_grad(module.current_epoch, batch_idx, optimizer)


def take_step(
    module: pl.LightningModule, optimizer: Optimizer, batch_idx: int, closure: Callable[[], Any]
) -> None:
    """Step an optimizer the way Lightning's automatic optimization does, by the module's ``optimizer_step``.

    Args:
        module: The module at the worker.
        optimizer: One of its optimizers.
        batch_idx: Number of the batch within the local epoch.
        closure: Computes loss and gradients.
    """
    if not is_overridden("optimizer_step", module):
        module.trainer.precision_plugin.optimizer_step(optimizer, model=module, closure=closure)
        return
    wrappers = module.trainer.strategy._lightning_optimizers
    wrapper = next(wrapper for wrapper in wrappers if wrapper.optimizer is optimizer)
    module.optimizer_step(module.current_epoch, batch_idx, wrapper, closure)


def attach(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Make a Trainer that never fits the one of a module, for the hooks that are called by way of it."""
    trainer.strategy.connect(module)
    trainer._data_connector.attach_data(module)
    trainer.state.fn = TrainerFn.FITTING
    trainer.training = True


def set_precision(trainer: pl.Trainer, plugin: Precision) -> None:
    """Give a Trainer that never fits another one's precision plugin."""
    trainer.strategy._precision_plugin = plugin


def callbacks_of(trainer: pl.Trainer) -> list[pl.Callback]:
    """Return the callbacks of a Trainer."""
    callbacks: list[pl.Callback] = getattr(trainer, "callbacks")  # noqa: B009 - untyped, set by a connector
    return callbacks


def set_progress(trainer: pl.Trainer, current_epoch: int, global_step: int) -> None:
    """Set what ``trainer.current_epoch`` and ``trainer.global_step`` return."""
    loop = trainer.fit_loop
    loop.epoch_progress.current.completed = current_epoch
    loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = global_step
    loop.epoch_loop.manual_optimization.optim_step_progress.total.completed = global_step


LOGS_ALONE: frozenset[CodeType] = frozenset(
    function.__code__
    for function in (pl.LightningModule.log_dict, *vars(RequirementCache).values())
    if inspect.isfunction(function)
)
"""The code of ``log_dict`` and of what it asks about versions: it does nothing but call ``log``."""


@contextmanager
def replaced_log(module: pl.LightningModule, log: Callable[..., None]) -> Iterator[None]:
    """Replace what ``LightningModule.log`` does, for one module, within the block.

    Args:
        module: The module.
        log: What takes its place.
    """
    if module._compiler_ctx is not None:
        # Traced into a compiled step, our bookkeeping would be compiled for every name and kind of value.
        untraced: Callable[..., Any] = torch.compiler.disable
        log = untraced(log)
    if type(module).log is pl.LightningModule.log and "log" not in module.__dict__:
        # On the instance: classes stay as they are, and log_dict finds it, too.
        module.__dict__["log"] = log
        try:
            yield
        finally:
            del module.__dict__["log"]
    else:
        with _replaced_below(module, log):
            yield


@contextmanager
def _replaced_below(module: pl.LightningModule, log: Callable[..., None]) -> Iterator[None]:
    """Replace the base method, which the module's own ``log`` calls by ``super().log``."""
    base = pl.LightningModule.log

    def log_of_one(self: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        (log if self is module else partial(base, self))(*args, **kwargs)

    setattr(pl.LightningModule, "log", log_of_one)  # noqa: B010 - a method must not be assigned to, says mypy
    try:
        yield
    finally:
        setattr(pl.LightningModule, "log", base)  # noqa: B010
