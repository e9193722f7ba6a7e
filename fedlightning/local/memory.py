"""What a worker keeps between two visits of the module: the state of the local optimizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

from torch import Tensor
from torch.optim import Optimizer

from fedlightning.workers import program

OptimizerState = Literal["reset", "keep", "travel"]
"""What becomes of the local optimizer's state (momentum, Adam's moments) between visits:

- ``"reset"``: every visit starts with an empty state;
- ``"keep"``: it stays at the worker, and the next visit there goes on with it;
- ``"travel"``: it goes along with the module to the next worker.
"""


class WorkerMemory:
    """A worker's own storage for one run.

    Args:
        optimizer_state: What becomes of the optimizer's state between visits.
    """

    def __init__(self, optimizer_state: OptimizerState) -> None:
        if optimizer_state not in get_args(OptimizerState):
            raise ValueError(
                f"optimizer_state must be one of {get_args(OptimizerState)}, got {optimizer_state!r}."
            )
        self._policy = optimizer_state
        self._kept: dict[Tensor, Any] = {}

    @contextmanager
    def optimizer_state_in(self, optimizer: Optimizer) -> Iterator[None]:
        """Give ``optimizer`` the state that this visit starts with, and take it away after.

        Settings that a local step changes in the parameter groups (learning rates stay those of the round)
        are restored unless the optimizer travels.
        """
        if self._policy == "travel":
            yield
            return
        settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        optimizer.state = defaultdict(dict, self._kept)
        try:
            yield
        finally:
            if self._policy == "keep":
                self._kept = dict(optimizer.state)
            optimizer.state = defaultdict(dict)
            for group, before in zip(optimizer.param_groups, settings, strict=True):
                group.update(before)


@program(returns="metadata")
def create_memory(optimizer_state: OptimizerState) -> WorkerMemory:
    """Create a worker's memory; it stays at the worker."""
    return WorkerMemory(optimizer_state)
