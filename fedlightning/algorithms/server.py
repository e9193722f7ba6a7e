"""What the server does with a cohort's average: take it as it is, or step an optimizer along it.

Averages are taken in ``averaging``; this module never sees a single worker's update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

ServerOptimizerFactory = Callable[[Iterable[Parameter]], Optimizer]
"""Builds the server optimizer for the module's parameters, e.g. ``partial(torch.optim.Adam, lr=0.01)``."""

ServerSchedulerFactory = Callable[[Optimizer], LRScheduler]
"""Builds the schedule of its learning rate, e.g. ``partial(LinearLR, start_factor=0.1, total_iters=20)``."""


class ServerUpdate:
    """Turn the average of a round into the next global parameters.

    Without a server optimizer the average is the new model (FedAvg). With one, the difference between the
    start of the round and the average is the *pseudo-gradient*, and the optimizer takes one step along it
    (Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 1). SGD with learning rate 1 is FedAvg
    up to rounding.

    Args:
        factory: Any ``torch.optim`` class with its settings as a partial; ``None`` for plain averaging.
        schedule: Any of torch's schedulers with its settings as a partial; it steps once per round.

    Example:
        >>> from functools import partial
        >>> start, average = [Parameter(torch.tensor([1.0]))], [torch.tensor([2.0])]
        >>> server = ServerUpdate(partial(torch.optim.SGD, lr=0.5))
        >>> server.prepare(start)
        >>> server.set_pseudo_gradients(start, average)
        >>> server.apply(start, average)
        >>> start[0].item()
        1.5
    """

    def __init__(
        self,
        factory: ServerOptimizerFactory | None = None,
        schedule: ServerSchedulerFactory | None = None,
    ) -> None:
        self._factory = factory
        self._schedule = schedule
        self._loaded_state: dict[str, Any] | None = None
        self.optimizer: Optimizer | None = None
        self.scheduler: LRScheduler | None = None

    @property
    def averages_plainly(self) -> bool:
        """Whether the average becomes the model as it is."""
        return self._factory is None

    def prepare(self, parameters: Sequence[Parameter]) -> None:
        """Build the optimizer for ``parameters``, with the state of a loaded checkpoint if there is one."""
        if self._factory is None:
            return
        self.optimizer = self._factory(parameters)
        self.scheduler = None if self._schedule is None else self._schedule(self.optimizer)
        if self._loaded_state is not None:
            state, self._loaded_state = self._loaded_state, None
            self.load_state_dict(state)

    @torch.no_grad()
    def set_pseudo_gradients(self, parameters: Sequence[Parameter], average: Sequence[Tensor]) -> None:
        """Store ``start - average`` as the gradient of each parameter, so that hooks and loggers see it.

        Args:
            parameters: The global parameters at the start of the round.
            average: The cohort's average, in the same order.
        """
        for parameter, mean in zip(parameters, average, strict=True):
            # A frozen parameter gets no gradient: weight decay at the server must not shrink it.
            parameter.grad = parameter.detach() - mean if parameter.requires_grad else None

    @torch.no_grad()
    def apply(self, parameters: Sequence[Parameter], average: Sequence[Tensor]) -> None:
        """Make the step of the round, in place.

        Args:
            parameters: The global parameters, holding their pseudo-gradients.
            average: The cohort's average, in the same order.
        """
        if self.optimizer is not None:
            self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        for parameter, mean in zip(parameters, average, strict=True):
            if self.optimizer is None or not parameter.requires_grad:
                parameter.copy_(mean)

    def state_dict(self) -> dict[str, Any] | None:
        """Return kind and state of the server optimizer and its scheduler; ``None`` without an optimizer."""
        if self.optimizer is None:
            return None
        state = {"kind": _kind(self.optimizer), "state": self.optimizer.state_dict()}
        if self.scheduler is None:
            return state
        return state | {
            "scheduler_kind": _kind(self.scheduler),
            "scheduler_state": self.scheduler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Take over a saved state: at once, or when ``prepare`` builds the optimizer.

        Raises:
            ValueError: It is the state of another optimizer or scheduler; names both.
        """
        if self.optimizer is None and self._factory is not None:
            self._loaded_state = state
            return
        saved = state or {}
        _require_same("server_optimizer", saved.get("kind"), _kind(self.optimizer))
        _require_same("server_scheduler", saved.get("scheduler_kind"), _kind(self.scheduler))
        if self.optimizer is not None:
            self.optimizer.load_state_dict(saved["state"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(saved["scheduler_state"])


def _kind(thing: object) -> str | None:
    return None if thing is None else type(thing).__name__


def _require_same(name: str, saved: str | None, own: str | None) -> None:
    if saved != own:
        raise ValueError(
            f"{name} is {own}, and the checkpoint's is {saved}, whose state is of no use to it. Use the same "
            "to go on, or load the weights alone."
        )
