"""Visits that are carried out together: who lies beside whom, and what each brings along.

Here each comes with a stream of batches and a memory of its own; ``pooled`` has those of workers of whom
nothing has been made yet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import Self, override

from fedlightning.local.memory import WorkerMemory
from fedlightning.local.streams import KeyedStream
from fedlightning.local.vectorised.batches import ChunkBatches, GatheredBatches, ReadBatches, in_same_memory
from fedlightning.local.vectorised.optimizers import (
    StackedOptimizer,
    StartStates,
    layout_of,
    stacked_states,
)
from fedlightning.local.visit import Visit

Numbers: TypeAlias = npt.NDArray[np.int64]
"""A number for each of several visits."""


@dataclass(frozen=True)
class Errand:
    """A visit with what the worker has for it.

    Args:
        stream: The worker's batches.
        memory: What the worker keeps between visits.
        visit: What is asked of it.
    """

    stream: KeyedStream
    memory: WorkerMemory
    visit: Visit

    def shortened(self, steps: int) -> Errand:
        """Return the start of the visit, with a memory of its own."""
        visit = replace(self.visit, steps=min(steps, self.visit.steps), requires_finite=False)
        return replace(self, visit=visit, memory=WorkerMemory("reset"))


class Errands(ABC):
    """Several visits, all from the same module.

    Attributes:
        visit: One of them; but for seed, first step and number of steps, all are asked for the same.
        steps: Local steps of each.
        metrics_of_each: Whether somebody asks what the torchmetrics of each visit come to.
    """

    visit: Visit
    steps: Numbers
    metrics_of_each: bool = True

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def why_not(self) -> str:
        """Say why they cannot be carried out together; nothing if nothing here speaks against it."""
        return "" if len(self) > 1 else "one worker in a round"

    @abstractmethod
    def one(self, number: int) -> Errand:
        """Return a visit as one to be carried out by itself.

        Args:
            number: Its position.
        """

    @abstractmethod
    def some(self, numbers: Sequence[int] | Numbers) -> Self:
        """Return some of the visits.

        Args:
            numbers: Their positions, in the order wanted.
        """

    @abstractmethod
    def shortened(self, steps: int) -> Errands:
        """Return the starts of the visits; what these keep is forgotten.

        Args:
            steps: The most that each may have.
        """

    @abstractmethod
    def first_sizes(self) -> Numbers:
        """Return how many samples each visit's first batch has."""

    @abstractmethod
    def seeds(self) -> list[int]:
        """Return the seed of each visit's own random stream."""

    @abstractmethod
    def batches(self, *, numbered: bool, device: torch.device) -> ChunkBatches:
        """Open the batches of the visits, of which longer ones come first.

        Args:
            numbered: Whether the module reads the number of a batch.
            device: Where the batches are to lie.
        """

    @abstractmethod
    def chunks(self, size: int) -> list[Numbers]:
        """Divide the visits into chunks, of whose workers those that still have steps to take come first.

        Batches of the same size in the same step lie side by side then, in a shard that is longer than
        another as well as in one that ends with a smaller batch. Within a chunk, all optimizers start in
        states of the same kind.

        Args:
            size: The most that one chunk may have.

        Returns:
            Positions; each occurs once.
        """

    def of_chunks(self, chunks: Sequence[Numbers]) -> Iterator[Self]:
        """Yield the visits of each chunk.

        Args:
            chunks: Positions of the visits, as `chunks` returns them.
        """
        return map(self.some, chunks)

    @abstractmethod
    def states(self) -> StartStates:
        """Return the states that the visits' optimizers start with; nothing where all start without."""

    @abstractmethod
    def put_down(self, numbers: Sequence[int], optimizer: StackedOptimizer) -> None:
        """Let workers keep what visits have left, if they keep such things.

        Args:
            numbers: Positions of the visits.
            optimizer: Has their optimizers' states, in the order of the visits.
        """


class SeparateErrands(Errands):
    """Visits that have been drawn up one by one.

    Args:
        errands: The visits.
    """

    def __init__(self, errands: Sequence[Errand]) -> None:
        self.errands = errands
        self.visit = errands[0].visit
        self.steps = np.array([errand.visit.steps for errand in errands], dtype=np.int64)

    @property
    @override
    def why_not(self) -> str:
        if not all(type(errand.stream) is KeyedStream for errand in self.errands):
            return "a stream of batches of another kind"
        if any(errand.memory.policy == "travel" for errand in self.errands):
            return "optimizer_state='travel'"
        return super().why_not

    @override
    def one(self, number: int) -> Errand:
        return self.errands[number]

    @override
    def some(self, numbers: Sequence[int] | Numbers) -> SeparateErrands:
        return SeparateErrands([self.errands[number] for number in numbers])

    @override
    def shortened(self, steps: int) -> SeparateErrands:
        return SeparateErrands([errand.shortened(steps) for errand in self.errands])

    @override
    def first_sizes(self) -> Numbers:
        return np.array([e.stream.batch_sizes(e.visit.first_step, 1)[0] for e in self.errands])

    @override
    def seeds(self) -> list[int]:
        return [errand.visit.seed or 0 for errand in self.errands]

    @override
    def batches(self, *, numbered: bool, device: torch.device) -> ChunkBatches:
        streams = [errand.stream for errand in self.errands]
        spans = [(errand.visit.first_step, errand.visit.steps) for errand in self.errands]
        first = np.array([start for start, _ in spans])
        every = np.array([stream.shard.num_batches for stream in streams])
        numbers = numbers_of(first, every, self.steps) if numbered else None
        if not in_same_memory(streams):
            opened = [stream.take(*span) for stream, span in zip(streams, spans, strict=True)]
            return ReadBatches(opened, numbers, device)
        sizes = np.zeros((len(spans), int(self.steps.max())), dtype=np.int64)
        for row, (stream, span) in enumerate(zip(streams, spans, strict=True)):
            sizes[row, : span[1]] = stream.batch_sizes(*span)
        rows = [stream.rows(*span) for stream, span in zip(streams, spans, strict=True)]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return GatheredBatches(streams[0].memory or (), padded, sizes, numbers, device)

    @override
    def chunks(self, size: int) -> list[Numbers]:
        alike: dict[Any, list[int]] = {}
        for number, errand in enumerate(self.errands):
            state = errand.memory.take_up(errand.visit.round)
            alike.setdefault(layout_of(state) if state else (), []).append(number)
        chunks: list[Numbers] = []
        for numbers in alike.values():
            numbers.sort(key=lambda number: _length(self.errands[number]))
            chunks += [np.array(numbers[start : start + size]) for start in range(0, len(numbers), size)]
        return chunks

    @override
    def states(self) -> StartStates:
        return stacked_states([errand.memory.take_up(errand.visit.round) for errand in self.errands])

    @override
    def put_down(self, numbers: Sequence[int], optimizer: StackedOptimizer) -> None:
        for number in numbers:
            errand = self.errands[number]
            kept = optimizer.state_of(number) if errand.memory.policy == "keep" else {}
            errand.memory.put_down(kept, errand.visit.round)


def numbers_of(first: Numbers, every: Numbers, steps: Numbers) -> Numbers:
    """Return the numbers of batches within their local epochs, shape ``(visits, steps of the longest)``.

    Args:
        first: Number of each visit's first batch, counted over all epochs.
        every: Batches of an epoch of each.
        steps: Steps of each.
    """
    return (first[:, None] + np.arange(int(steps.max()))) % every[:, None]


def _length(errand: Errand) -> tuple[int, ...]:
    shard, visit = errand.stream.shard, errand.visit
    return -visit.steps, shard.num_samples, visit.first_step % shard.num_batches
