"""Learning-rate schedulers that a module steps itself, in another process: they travel as plain values.

In process, a module finds its Trainer's own. Those that Lightning steps stay: they act between rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from fedlightning.local.worker_trainer import WorkerTrainer
from fedlightning.workers.remote import UnsendableError, record

# What their ``state_dict`` holds is all there is to them; others hold functions, or further schedulers.
TRAVELLING: Mapping[str, type[LRScheduler]] = {
    kind.__name__: kind
    for kind in (
        lr_scheduler.StepLR,
        lr_scheduler.MultiStepLR,
        lr_scheduler.ConstantLR,
        lr_scheduler.LinearLR,
        lr_scheduler.ExponentialLR,
        lr_scheduler.PolynomialLR,
        lr_scheduler.CosineAnnealingLR,
        lr_scheduler.CosineAnnealingWarmRestarts,
        lr_scheduler.OneCycleLR,
        lr_scheduler.ReduceLROnPlateau,
    )
}


@record
@dataclass(frozen=True)
class SchedulerState:
    """A scheduler as it travels.

    Args:
        kind: Name of its class.
        optimizer: Number of the optimizer that it is of.
        state: What its ``state_dict`` returns.
    """

    kind: str
    optimizer: int
    state: dict[str, Any]


def describe_schedulers(
    schedulers: Sequence[LRScheduler], optimizers: Sequence[Optimizer]
) -> tuple[SchedulerState, ...]:
    """Return schedulers as they travel.

    Args:
        schedulers: Schedulers that a module steps itself.
        optimizers: What they are of.

    Raises:
        UnsendableError: One is of a kind that cannot be told by its state; names it.
    """
    numbers = {id(optimizer): number for number, optimizer in enumerate(optimizers)}
    for scheduler in schedulers:
        if TRAVELLING.get(type(scheduler).__name__) is not type(scheduler):
            raise UnsendableError(
                f"the scheduler {type(scheduler).__name__} is stepped by the module itself, but holds more "
                f"than values, and does not travel to workers in other processes. Use one of "
                f"{', '.join(TRAVELLING)}, automatic optimization, or virtual workers"
            )
    return tuple(
        SchedulerState(type(one).__name__, numbers[id(one.optimizer)], one.state_dict()) for one in schedulers
    )


def lend_schedulers(
    module: pl.LightningModule, states: Sequence[SchedulerState], optimizers: Sequence[Optimizer]
) -> list[LRScheduler]:
    """Let ``self.lr_schedulers()`` find the schedulers that came to a worker process with a module.

    Args:
        module: A module at a worker.
        states: Its schedulers; none in process, where its Trainer has them already.
        optimizers: Its optimizers, at the worker.

    Returns:
        The schedulers.
    """
    made = [_made(state, optimizers[state.optimizer]) for state in states]
    if isinstance(module.trainer, WorkerTrainer):
        module.trainer.strategy.lr_scheduler_configs = [LRSchedulerConfig(scheduler) for scheduler in made]
    return made


def _made(state: SchedulerState, optimizer: Optimizer) -> LRScheduler:
    kind = TRAVELLING[state.kind]
    # Not by its constructor, which would take its first step on the optimizer once more.
    scheduler = kind.__new__(kind)
    scheduler.optimizer = optimizer
    scheduler.load_state_dict(dict(state.state))
    return scheduler
