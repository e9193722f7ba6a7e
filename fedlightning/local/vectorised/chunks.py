"""Which visits are carried out together: those that are alike in length and batches lie side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedlightning.local.memory import WorkerMemory
from fedlightning.local.streams import KeyedStream
from fedlightning.local.vectorised.optimizers import layout_of
from fedlightning.local.visit import Visit


@dataclass(frozen=True)
class Errand:
    """A visit that is to be carried out together with others.

    Args:
        stream: The worker's batches.
        memory: What the worker keeps between visits.
        visit: What is asked of it.
    """

    stream: KeyedStream
    memory: WorkerMemory
    visit: Visit


def chunks_of(errands: Sequence[Errand], size: int) -> list[list[int]]:
    """Divide visits into chunks, of whose workers those that still have steps to take come first.

    Batches of the same size in the same step lie side by side then, in a shard that is longer than another
    as well as in one that ends with a smaller batch. Within a chunk, all optimizers start in states of the
    same kind.

    Args:
        errands: The visits.
        size: The most that one chunk may have.

    Returns:
        Positions among ``errands``; each occurs once.
    """
    alike: dict[Any, list[int]] = {}
    for number, errand in enumerate(errands):
        state = errand.memory.take_up(errand.visit.round)
        alike.setdefault(layout_of(state) if state else (), []).append(number)
    chunks = []
    for numbers in alike.values():
        numbers.sort(key=lambda number: _length(errands[number]))
        chunks += [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return chunks


def _length(errand: Errand) -> tuple[int, ...]:
    shard, visit = errand.stream.shard, errand.visit
    return -visit.steps, shard.num_samples, visit.first_step % shard.num_batches
