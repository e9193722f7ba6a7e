"""What a worker keeps between two visits: optimizer states, loss scale, and what an algorithm wants kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
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


Own = Mapping[str, list[Tensor]]
"""What an algorithm keeps at a worker, by name."""


@dataclass(frozen=True)
class _Kept:
    """What a visit has left: optimizer states by the index of their parameter, loss scale, own things."""

    optimizers: Sequence[Mapping[int, Any]] = ()
    precision: Mapping[str, Any] = field(default_factory=dict)
    own: Own = field(default_factory=dict)


_NOTHING = _Kept()


class WorkerMemory:
    """A worker's own storage for one run.

    What a visit leaves counts once its round is over: where a round fails and is done again, every worker of
    it starts from what it had kept before.

    The loss scale of 16-bit precision is each worker's own, whatever becomes of optimizer states: it depends
    on the worker's gradients, and a visit that began with a fresh one would skip its first steps.

    Args:
        optimizer_state: What becomes of the optimizers' states between visits.

    Attributes:
        own: What an algorithm keeps at this worker, by name, such as a control variate; for a visit to
            exchange, not to write to.
        outgoing: What an algorithm sends up beside the update of the last visit, by name.
    """

    def __init__(self, optimizer_state: OptimizerState) -> None:
        if optimizer_state not in get_args(OptimizerState):
            raise ValueError(
                f"optimizer_state must be one of {get_args(OptimizerState)}, got {optimizer_state!r}."
            )
        self._policy = optimizer_state
        self._kept = _NOTHING
        self._left: _Kept | None = None
        self._left_in = -1
        self.own: dict[str, list[Tensor]] = {}
        self.outgoing: dict[str, list[Tensor]] = {}

    @contextmanager
    def lent_to(self, optimizers: Sequence[Optimizer], precision: Precision, round: int) -> Iterator[None]:
        """Give optimizers and precision plugin what a visit starts with, and take it back after.

        If the block raises, what is kept stays as it was before.

        Args:
            optimizers: The optimizers at the worker.
            precision: The precision plugin at the worker.
            round: Number of the visit's round.
        """
        kept = self._begin(round)
        scale = precision.state_dict()
        if kept.precision:
            precision.load_state_dict(dict(kept.precision))
        if self._policy != "travel":
            for position, optimizer in enumerate(optimizers):
                state = kept.optimizers[position] if position < len(kept.optimizers) else {}
                # Optimizers change their states in place.
                set_state(optimizer, deepcopy(state) if state else state)
        try:
            yield
            states = [state_by_index(one) for one in optimizers] if self._policy == "keep" else []
            self._end(states, precision.state_dict(), round)
        finally:
            precision.load_state_dict(scale)
            if self._policy != "travel":
                for optimizer in optimizers:
                    set_state(optimizer, {})

    @property
    def policy(self) -> OptimizerState:
        """What becomes of the optimizers' states between visits."""
        return self._policy

    def take_up(self, round: int) -> Mapping[int, Any]:
        """Return the state that the only optimizer of a visit starts with, by the index of its parameter.

        For visits that are carried out together with others, without lending an optimizer.

        Args:
            round: Number of the visit's round.
        """
        kept = self._begin(round)
        return kept.optimizers[0] if kept.optimizers else {}

    def put_down(self, state: Mapping[int, Any], round: int) -> None:
        """Keep the state that such a visit has left, if states are kept.

        Args:
            state: What `take_up` is to return next.
            round: Number of the visit's round.
        """
        self._end([state], {}, round)

    def go_on_with(self, kept: Mapping[int, Any] | None, left: Mapping[int, Any] | None, round: int) -> None:
        """Take over the state of the only optimizer from what was kept of this worker before it was made.

        Args:
            kept: What visits of earlier rounds have left; ``None`` for nothing.
            left: What a visit of ``round`` has left.
            round: Number of that round.
        """
        self._kept = _NOTHING if kept is None else _Kept([kept])
        self._left, self._left_in = None if left is None else _Kept([left]), round

    def own_before(self, round: int) -> Own:
        """Return what an algorithm has kept here before a round begins."""
        return self._kept_before(round).own

    def lent_out(self, round: int) -> WorkerMemory:
        """Return a memory for a visit in another process: it has kept what this one has.

        Args:
            round: Number of the visit's round.
        """
        lent = WorkerMemory(self._policy)
        lent._kept = self._kept_before(round)
        return lent

    def left_for_controller(self) -> WorkerMemory | None:
        """Return what a visit in another process takes back of its memory; ``None`` for nothing."""
        left, self._kept = self._left, _NOTHING
        return None if left is None or not (left.optimizers or left.precision or left.own) else self

    def take_back(self, lent: WorkerMemory | None, round: int) -> None:
        """Keep what a visit in another process has left.

        Args:
            lent: What came back; ``None`` for nothing.
            round: Number of the visit's round.
        """
        self._begin(round)
        left = _NOTHING if lent is None or lent._left is None else lent._left
        self.own = dict(left.own)
        self._left, self._left_in = left, round

    def state_dict(self, round: int) -> dict[str, Any]:
        """Return what is kept, as plain values: optimizer states by the index of their parameter.

        Args:
            round: Number of the round that comes next; what a visit has left in it already is not over.
        """
        kept = self._kept_before(round)
        return {
            "optimizers": [dict(state) for state in kept.optimizers],
            "precision": dict(kept.precision),
            "own": {name: list(tensors) for name, tensors in kept.own.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what was saved, by earlier versions as well."""
        own = state.get("own", {})
        self._kept, self._left = _Kept(state["optimizers"], state["precision"], own), None

    def _begin(self, round: int) -> _Kept:
        self._kept, self._left = self._kept_before(round), None
        self.own, self.outgoing = dict(self._kept.own), {}
        return self._kept

    def _end(self, states: Sequence[Mapping[int, Any]], scale: Mapping[str, Any], round: int) -> None:
        states = states if self._policy == "keep" else []
        # Most workers keep nothing, and share that: there may be thousands of them.
        keeps = bool(states or scale or self.own)
        self._left, self._left_in = _Kept(states, scale, self.own) if keeps else _NOTHING, round

    def _kept_before(self, round: int) -> _Kept:
        return self._left if self._left is not None and self._left_in < round else self._kept


@program(returns="module")
def create_memory(optimizer_state: OptimizerState) -> WorkerMemory:
    """Create a worker's memory; it stays at the worker."""
    return WorkerMemory(optimizer_state)


@program(returns="module")
def export_memory(memory: WorkerMemory, round: int) -> dict[str, Any]:
    """Return a worker's memory for a checkpoint, from which ``round`` is the next."""
    return memory.state_dict(round)


@program(returns="module")
def take_outgoing(memory: WorkerMemory) -> dict[str, list[Tensor]]:
    """Return what an algorithm sends up beside the update of the last visit."""
    outgoing, memory.outgoing = memory.outgoing, {}
    return outgoing


@program(returns="metadata")
def import_memory(memory: WorkerMemory, state: Mapping[str, Any]) -> None:
    """Give a worker the memory that a checkpoint holds."""
    memory.load_state_dict(state)


def _parameters_of(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def state_by_index(optimizer: Optimizer) -> dict[int, Any]:
    """Return an optimizer's state by the index of the parameter; its tensors are not copied."""
    parameters = enumerate(_parameters_of(optimizer))
    return {index: optimizer.state[p] for index, p in parameters if p in optimizer.state}


def set_state(optimizer: Optimizer, by_index: Mapping[int, Any]) -> None:
    """Let an optimizer go on with a state.

    Args:
        optimizer: The optimizer.
        by_index: What `state_by_index` returned, of which nothing is copied.
    """
    if not by_index and not optimizer.state:
        return
    parameters = _parameters_of(optimizer)
    optimizer.state = defaultdict(dict, {parameters[index]: state for index, state in by_index.items()})
