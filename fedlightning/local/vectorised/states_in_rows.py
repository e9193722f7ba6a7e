"""Optimizer states that lie in rows, as a chunk of workers starts with them: who goes with whom, and stacks.

Where rows come from, and where what is left goes, is for ``local.kept_states`` to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from fedlightning.local.kept_states import KeptStates, Loose, Place, places_by_table
from fedlightning.local.vectorised.chunks import Numbers
from fedlightning.local.vectorised.optimizers import SCALARS, StartStates


def why_not_stacked(states: KeptStates, workers: Sequence[str]) -> str:
    """Say why the states of some workers cannot be stacked; nothing if they can.

    Args:
        states: The states.
        workers: Names of the workers.
    """
    loose = any(isinstance(states.start_of(worker), Loose) for worker in workers)
    return "an optimizer's state that is no row of numbers" if loose else ""


def kinds_of(states: KeptStates, workers: Sequence[str]) -> Numbers:
    """Return a number for each of some workers, the same for those whose optimizers may step together.

    Args:
        states: Their states, which can be stacked.
        workers: Names of the workers.
    """
    kinds = np.zeros(len(workers), dtype=np.int64)
    places = [_unless_empty(states.start_of(worker)) for worker in workers]
    found = 0
    for table, numbers in places_by_table(places).items():
        if table is None or isinstance(table, Loose):
            kinds[numbers], found = found, found + 1
            continue
        rows = [place[1] for place in (places[n] for n in numbers) if isinstance(place, tuple)]
        _, of_each = np.unique(table.columns(rows, SCALARS), axis=0, return_inverse=True)
        kinds[numbers] = found + of_each.reshape(-1)
        found += int(of_each.max()) + 1
    return kinds


def starts_of(states: KeptStates, workers: Sequence[str]) -> StartStates:
    """Stack the states of workers of one kind.

    Args:
        states: Their states.
        workers: Names of the workers.
    """
    places = [place for place in map(states.start_of, workers) if isinstance(place, tuple)]
    if not places:
        return {}
    table = places[0][0]
    stacks: dict[int, dict[str, Tensor]] = {}
    for entry, stack in zip(table.layout, table.stacked([row for _, row in places]), strict=True):
        stacks.setdefault(entry.index, {})[entry.name] = stack
    return {index: _divided(own) for index, own in stacks.items()}


def _unless_empty(place: Place | None) -> Place | None:
    # An optimizer that keeps nothing goes on as one that has not begun.
    return None if isinstance(place, tuple) and not place[0].layout else place


def _divided(own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    scalars = {name: stack[0].clone() for name, stack in own.items() if name in SCALARS}
    return scalars, {name: stack for name, stack in own.items() if name not in SCALARS}
