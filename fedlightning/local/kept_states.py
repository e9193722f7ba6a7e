"""What workers of whom nothing is made keep of their optimizer between visits.

The same as a ``WorkerMemory`` at each of them would, for optimizer states alone, without an object for any.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor
from torch.optim import Optimizer

from fedlightning.local.memory import WorkerMemory, set_state, state_by_index
from fedlightning.local.state_rows import Layout, State, StateTable, layout_of_tensors


@dataclass(frozen=True, eq=False)
class Loose:
    """A state that is no row of numbers, such as a list of tensors.

    Args:
        state: The state.
    """

    state: State


Place: TypeAlias = "tuple[StateTable, int] | Loose"
"""Where a state is: a row of a table, or by itself."""


class KeptStates:
    """Keep optimizer states by worker.

    What a visit leaves counts once its round is over, as in `WorkerMemory`. Where a worker has been made, its
    memory has its state, and visits go on with that.

    Args:
        memory_of: Returns the memory of a worker that was made; ``None`` for any other.
    """

    def __init__(self, memory_of: Callable[[str], WorkerMemory | None]) -> None:
        self._memory_of = memory_of
        self._tables: dict[Layout, StateTable] = {}
        self._kept: dict[str, Place] = {}
        self._left: dict[str, Place] = {}
        self._round = -1
        # Of workers that were made, for the round.
        self._memories: dict[str, WorkerMemory] = {}
        self._borrowed: dict[str, Place] = {}
        self._lent: Place | None = None

    def begin(self, round: int, workers: Iterable[str]) -> None:
        """Begin visits of a round, or those of some workers again, from what they had kept before it.

        Args:
            round: Number of the round.
            workers: Names of the workers.
        """
        for place in self._borrowed.values():
            self._let_go(place)
        self._memories, self._borrowed = {}, {}
        if round > self._round:
            for worker, place in self._left.items():
                self._put(self._kept, worker, place)
            self._left = {}
        elif round < self._round:
            self._drop(self._left)
        self._round = round
        for worker in workers:
            self._let_go(self._left.pop(worker, None))
            memory = self._memory_of(worker)
            if memory is not None:
                self._memories[worker] = memory

    def start_of(self, worker: str) -> Place | None:
        """Return where the state is that a worker's visit of this round starts with.

        Args:
            worker: Its name.

        Returns:
            The place; ``None`` where the visit starts without.
        """
        memory = self._memories.get(worker)
        if memory is None:
            return self._kept.get(worker)
        if worker not in self._borrowed:
            self._borrowed[worker] = self._placed(memory.take_up(self._round))
        return self._borrowed[worker]

    # One visit after the other.

    def lend_to(self, optimizer: Optimizer, worker: str) -> None:
        """Give an optimizer without a state that which a worker's visit starts with.

        Args:
            optimizer: The optimizer.
            worker: Name of the worker.
        """
        self._lent = place = self.start_of(worker)
        if isinstance(place, Loose):
            set_state(optimizer, deepcopy(place.state))
        elif place is not None:
            table, row = place
            set_state(optimizer, table.lent(row))

    def take_from(self, optimizer: Optimizer, worker: str) -> None:
        """Keep what a visit has left of an optimizer's state.

        Args:
            optimizer: The optimizer, as it was after the visit.
            worker: Name of the worker.
        """
        state, lent = state_by_index(optimizer), self._lent
        if isinstance(lent, tuple):
            table = lent[0]
            row = table.take()
            if table.write_lent(row, state):
                self._keep(worker, (table, row))
                return
            table.give_back(row)
        self._keep(worker, self._placed(state))

    # Several visits at once.

    def keep_stacked(self, workers: Sequence[str], stacks: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Keep what visits have left of states that are of one layout.

        Args:
            workers: Names of the workers.
            stacks: The tensors of their states, stacked, by the index of the parameter.
        """
        layout = layout_of_tensors(_one_of(stacks, 0))
        if layout is None:
            for number, worker in enumerate(workers):
                self._keep(worker, Loose(_one_of(stacks, number)))
            return
        table = self._table(layout)
        rows = [table.take() for _ in workers]
        table.write_stacked(rows, [stack for own in stacks.values() for stack in own.values()])
        for worker, row in zip(workers, rows, strict=True):
            self._keep(worker, (table, row))

    # Workers that are made, and checkpoints.

    def move_to(self, memory: WorkerMemory, worker: str) -> None:
        """Let a worker that was just made have what was kept of it.

        Args:
            memory: Its memory.
            worker: Its name.
        """
        kept, left = self._kept.pop(worker, None), self._left.pop(worker, None)
        if kept is not None or left is not None:
            memory.go_on_with(_state_at(kept), _state_at(left), self._round)
            self._let_go(kept)
            self._let_go(left)

    def state_of(self, worker: str, round: int) -> State | None:
        """Return what is kept of a worker, for a checkpoint from which a round is the next.

        Args:
            worker: Its name.
            round: Number of that round; what a visit has left in it already is not over.

        Returns:
            The state; ``None`` where nothing is kept.
        """
        place = self._left.get(worker) if self._round < round else None
        return _state_at(place or self._kept.get(worker))

    @property
    def workers(self) -> list[str]:
        """Names of the workers of whom something is kept, in the order of their first visits."""
        return [*self._kept, *(worker for worker in self._left if worker not in self._kept)]

    def put(self, worker: str, state: State) -> None:
        """Keep what a checkpoint holds.

        Args:
            worker: Name of the worker.
            state: Its state.
        """
        self._put(self._kept, worker, self._placed(state))

    def forget(self) -> None:
        """Keep nothing, as before the first round."""
        self._tables, self._kept, self._left, self._round = {}, {}, {}, -1
        self._memories, self._borrowed, self._lent = {}, {}, None

    # Rows.

    def _keep(self, worker: str, place: Place) -> None:
        memory = self._memories.get(worker)
        if memory is None:
            self._put(self._left, worker, place)
            return
        memory.put_down(_state_at(place) or {}, self._round)
        self._let_go(place)

    def _put(self, places: dict[str, Place], worker: str, place: Place) -> None:
        self._let_go(places.get(worker))
        places[worker] = place

    def _placed(self, state: State) -> Place:
        """Put a state down where there is room for it."""
        layout = layout_of_tensors(state)
        if layout is None:
            return Loose(deepcopy(state))  # it may consist of tensors that the next visit works with
        table = self._table(layout)
        row = table.take()
        table.write(row, state)
        return table, row

    def _table(self, layout: Layout) -> StateTable:
        if layout not in self._tables:
            self._tables = {of: table for of, table in self._tables.items() if not table.is_empty}
            self._tables[layout] = StateTable(layout)
        return self._tables[layout]

    def _drop(self, places: dict[str, Place]) -> None:
        for place in places.values():
            self._let_go(place)
        places.clear()

    @staticmethod
    def _let_go(place: Place | None) -> None:
        if isinstance(place, tuple):
            table, row = place
            table.give_back(row)


def _one_of(stacks: Mapping[int, Mapping[str, Tensor]], number: int) -> State:
    return {
        index: {name: stack[number].clone() for name, stack in own.items()} for index, own in stacks.items()
    }


def places_by_table(places: Iterable[Place | None]) -> dict[StateTable | Loose | None, list[int]]:
    """Sort the numbers of places by the table that they are rows of.

    Args:
        places: Where some states are.
    """
    numbers: dict[StateTable | Loose | None, list[int]] = defaultdict(list)
    for number, place in enumerate(places):
        numbers[place[0] if isinstance(place, tuple) else place].append(number)
    return dict(numbers)


def _state_at(place: Place | None) -> State | None:
    if place is None:
        return None
    if isinstance(place, Loose):
        return place.state
    table, row = place
    return table.read(row)
