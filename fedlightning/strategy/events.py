"""Tell the Trainer's callbacks of rounds and visits while they happen; what they do with it is theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeVar, runtime_checkable

import lightning.pytorch as pl

from fedlightning.algorithms import Plan
from fedlightning.strategy import lightning_calls
from fedlightning.strategy.records import RoundRecord, VisitRecord, VisitStart

HookMethod = TypeVar("HookMethod", bound=Callable[..., None])


def hears_nothing(hook: HookMethod) -> HookMethod:
    """Mark a hook that does nothing, so that nobody makes what it would be told.

    Args:
        hook: A method of a base class, to be overridden.

    Example:
        >>> @hears_nothing
        ... def on_worker_end(self, trainer, pl_module, visit): ...
        >>> on_worker_end.hears_nothing
        True
    """
    vars(hook)["hears_nothing"] = True
    return hook


@runtime_checkable
class RoundListener(Protocol):
    """A callback that listens to rounds, as `fedlightning.callbacks.FederatedCallback` does."""

    def on_round_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, plan: Plan) -> None:
        """Hear of a round before anything is sent."""

    def on_worker_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, visit: VisitStart) -> None:
        """Hear of a visit before the module is sent."""

    def on_worker_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, visit: VisitRecord) -> None:
        """Hear of a visit after the module is back."""

    def on_round_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, record: RoundRecord) -> None:
        """Hear of a round once the global module holds its result."""


Hook = Literal["on_round_start", "on_worker_start", "on_worker_end", "on_round_end"]


class Audience:
    """The callbacks that listen to rounds, told in the order in which the Trainer has them.

    Args:
        trainer: Whose callbacks they are; ``None`` for an empty audience.
    """

    def __init__(self, trainer: pl.Trainer | None = None) -> None:
        self._trainer = trainer
        callbacks: list[pl.Callback] = getattr(trainer, "callbacks", [])
        self._listeners = [callback for callback in callbacks if isinstance(callback, RoundListener)]

    def __bool__(self) -> bool:
        return bool(self._listeners)

    @property
    def follows_visits(self) -> bool:
        """Whether somebody hears of single visits: a hook that was left as it is hears nothing."""
        hooks = ("on_worker_start", "on_worker_end")
        return any(
            not getattr(getattr(type(listener), hook), "hears_nothing", False)
            for listener in self._listeners
            for hook in hooks
        )

    def tell(self, hook: Hook, about: Plan | VisitStart | VisitRecord | RoundRecord) -> None:
        """Call a hook of every listener; the profiler times it like Lightning's own.

        Args:
            hook: Its name.
            about: What has begun or ended.
        """
        for listener in self._listeners:
            assert self._trainer is not None
            with lightning_calls.profiled(self._trainer, f"[Callback]{type(listener).__name__}.{hook}"):
                getattr(listener, hook)(self._trainer, self._trainer.lightning_module, about)
