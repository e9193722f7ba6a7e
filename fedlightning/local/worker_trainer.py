"""What a LightningModule finds as ``self.trainer`` in a worker process: a Trainer that never fits.

It knows the settings and the progress of the controller's Trainer as far as local work depends on them.
Callbacks and DataModule stay at the controller; what of them would act at a worker is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.core.hooks import DataHooks
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn
from torch.optim import Optimizer

from fedlightning.local.hooks import BATCH_HOOKS, STEP_HOOKS
from fedlightning.local.lightning_calls import attach, callbacks_of, set_progress
from fedlightning.workers.remote import UnsendableError, accompany_modules, record


@record
@dataclass(frozen=True)
class TrainerSettings:
    """The settings of the controller's Trainer that local work depends on; names as in ``Trainer(...)``."""

    precision: str
    gradient_clip_val: float | None
    gradient_clip_algorithm: str | None
    max_epochs: int | None
    max_steps: int

    @classmethod
    def of(cls, trainer: pl.Trainer) -> TrainerSettings:
        """Read the settings off a Trainer.

        Raises:
            UnsendableError: It has a precision plugin that is not Lightning's own.
        """
        if not type(trainer.precision_plugin).__module__.startswith("lightning."):
            raise UnsendableError(
                f"the precision plugin {type(trainer.precision_plugin).__name__} is code and does not travel "
                f"to workers in other processes: use Trainer(precision=...), or virtual workers"
            )
        clipping = trainer.gradient_clip_algorithm
        return cls(
            precision=trainer.precision_plugin.precision,
            gradient_clip_val=trainer.gradient_clip_val,
            gradient_clip_algorithm=None if clipping is None else str(clipping.value),
            max_epochs=trainer.max_epochs,
            max_steps=trainer.max_steps,
        )


@record
@dataclass(frozen=True)
class TrainerView:
    """What travels of a Trainer with its module.

    Args:
        settings: Its settings.
        current_epoch: As ``trainer.current_epoch``.
        global_step: As ``trainer.global_step``.
    """

    settings: TrainerSettings
    current_epoch: int
    global_step: int


class WorkerTrainer(pl.Trainer):
    """Be the Trainer of one module in a worker process.

    Args:
        settings: As at the controller.
        module: The module; ``None`` if it comes later.
    """

    def __init__(self, settings: TrainerSettings, module: pl.LightningModule | None = None) -> None:
        with _without_advice():
            super().__init__(
                **asdict(settings),
                accelerator="cpu",
                devices=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
        self.settings = settings
        if module is not None:
            attach(self, module)


def lend_optimizers(module: pl.LightningModule, optimizers: Sequence[Optimizer]) -> None:
    """Let ``self.optimizers()`` find the optimizers that came to a worker process with a module.

    Args:
        module: A module at a worker. In process, its Trainer has the optimizers already.
        optimizers: What it optimizes with.
    """
    if isinstance(module.trainer, WorkerTrainer):
        module.trainer.strategy.optimizers = list(optimizers)


def _take(module: nn.Module) -> TrainerView | None:
    trainer = module._trainer if isinstance(module, pl.LightningModule) else None
    if trainer is None or isinstance(trainer, WorkerTrainer):
        return None
    _check_hooks(trainer)
    return TrainerView(TrainerSettings.of(trainer), trainer.current_epoch, trainer.global_step)


def _give(module: nn.Module, view: Any) -> None:
    assert isinstance(module, pl.LightningModule)
    assert isinstance(view, TrainerView)
    trainer = module._trainer
    if isinstance(trainer, WorkerTrainer) and trainer.settings == view.settings:
        set_progress(trainer, view.current_epoch, view.global_step)
    elif trainer is None or isinstance(trainer, WorkerTrainer):
        set_progress(WorkerTrainer(view.settings, module), view.current_epoch, view.global_step)


def _check_hooks(trainer: pl.Trainer) -> None:
    for reason in hooks_left_behind(trainer):
        raise UnsendableError(f"{reason}, or use virtual workers")


def hooks_left_behind(trainer: pl.Trainer) -> Iterator[str]:
    """Yield what of a Trainer's callbacks and DataModule would act at a worker, if it were not elsewhere.

    Args:
        trainer: The Trainer.
    """
    datamodule = getattr(trainer, "datamodule", None)
    if datamodule is not None:
        for hook in BATCH_HOOKS:
            if is_overridden(hook, datamodule, parent=DataHooks):
                yield _left_behind(type(datamodule).__name__, hook, "move it to the LightningModule")
    for callback in callbacks_of(trainer):
        for hook in STEP_HOOKS:
            if is_overridden(hook, callback, parent=pl.Callback):
                yield _left_behind(type(callback).__name__, hook, "override the hook in the LightningModule")


def _left_behind(owner: str, hook: str, remedy: str) -> str:
    return (
        f"{owner}.{hook} acts on the batches or steps of a worker, but stays at the controller when the "
        f"worker is in another process: {remedy}"
    )


@contextmanager
def _without_advice() -> Iterator[None]:
    # A Trainer tells which devices it found, which is nothing to say for each module that comes by.
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


accompany_modules(f"{__name__}:view", _take, _give)
