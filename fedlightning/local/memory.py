"""What a worker keeps between two visits: optimizer states, and the loss scale of 16-bit precision."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal, get_args

from lightning.pytorch.plugins.precision import Precision
from torch import Tensor
from torch.optim import Optimizer

from fedlightning.workers import program

OptimizerState = Literal["reset", "keep", "travel"]
"""What becomes of a local optimizer's state (momentum, Adam's moments) between visits:

- ``"reset"``: every visit starts with an empty state;
- ``"keep"``: it stays at the worker, and the next visit there goes on with it;
- ``"travel"``: it goes along with the module to the next worker.
"""


class WorkerMemory:
    """A worker's own storage for one run.

    The loss scale of 16-bit precision is each worker's own, whatever becomes of optimizer states: it depends
    on the worker's gradients, and a visit that began with a fresh one would skip its first steps.

    Args:
        optimizer_state: What becomes of the optimizers' states between visits.
    """

    def __init__(self, optimizer_state: OptimizerState) -> None:
        if optimizer_state not in get_args(OptimizerState):
            raise ValueError(
                f"optimizer_state must be one of {get_args(OptimizerState)}, got {optimizer_state!r}."
            )
        self._policy = optimizer_state
        self._states: list[dict[int, Any]] = []
        self._precision: dict[str, Any] = {}

    @contextmanager
    def lent_to(self, optimizers: Sequence[Optimizer], precision: Precision) -> Iterator[None]:
        """Give optimizers and precision plugin what a visit starts with, and take it back after.

        If the block raises, what is kept stays as it was before.
        """
        scale = precision.state_dict()
        before = deepcopy(self._states)  # optimizers change their states in place
        if self._precision:
            precision.load_state_dict(self._precision)
        if self._policy != "travel":
            for position, optimizer in enumerate(optimizers):
                kept = self._states[position] if position < len(self._states) else {}
                _set_state(optimizer, kept)
        try:
            yield
        except BaseException:
            self._states = before
            raise
        else:
            self._precision = precision.state_dict()
            if self._policy == "keep":
                self._states = [_state_by_index(optimizer) for optimizer in optimizers]
        finally:
            precision.load_state_dict(scale)
            if self._policy != "travel":
                for optimizer in optimizers:
                    _set_state(optimizer, {})

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept, as plain values: optimizer states by the index of their parameter."""
        return {"optimizers": self._states, "precision": self._precision}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what was saved."""
        self._states = list(state["optimizers"])
        self._precision = dict(state["precision"])


@program(returns="module")
def create_memory(optimizer_state: OptimizerState) -> WorkerMemory:
    """Create a worker's memory; it stays at the worker."""
    return WorkerMemory(optimizer_state)


@program(returns="module")
def export_memory(memory: WorkerMemory) -> dict[str, Any]:
    """Return a worker's memory for a checkpoint."""
    return memory.state_dict()


@program(returns="metadata")
def import_memory(memory: WorkerMemory, state: Mapping[str, Any]) -> None:
    """Give a worker the memory that a checkpoint holds."""
    memory.load_state_dict(state)


def _parameters_of(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _state_by_index(optimizer: Optimizer) -> dict[int, Any]:
    parameters = enumerate(_parameters_of(optimizer))
    return {index: optimizer.state[p] for index, p in parameters if p in optimizer.state}


def _set_state(optimizer: Optimizer, by_index: Mapping[int, Any]) -> None:
    parameters = _parameters_of(optimizer)
    optimizer.state = defaultdict(dict, {parameters[index]: state for index, state in by_index.items()})
