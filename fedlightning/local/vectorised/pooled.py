"""Visits to workers whose samples lie in one pool: names and numbers in columns, and nothing made for any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from typing_extensions import override

from fedlightning.data.pool import RowPool
from fedlightning.local.kept_states import KeptStates
from fedlightning.local.memory import WorkerMemory
from fedlightning.local.streams import KeyedStream
from fedlightning.local.vectorised.batches import ChunkBatches, GatheredBatches
from fedlightning.local.vectorised.chunks import Errand, Errands, Numbers, numbers_of
from fedlightning.local.vectorised.optimizers import StackedOptimizer, StartStates
from fedlightning.local.vectorised.states_in_rows import kinds_of, starts_of, why_not_stacked
from fedlightning.local.visit import Visit
from fedlightning.workers.random import derive_seed, derive_seeds

_ROWS_AHEAD = 1 << 16
"""How many rows are drawn at once: what drawing costs beside them is little then, and so is their memory."""


@dataclass(frozen=True)
class _Drawn:
    """What visits read.

    Args:
        rows: As of `PooledErrands.rows`.
        numbers: As of `PooledErrands.batch_numbers`.
        sizes: Likewise.
    """

    rows: torch.Tensor
    numbers: Numbers
    sizes: Numbers

    def some(self, chosen: Numbers) -> _Drawn:
        return _Drawn(self.rows[torch.from_numpy(chosen)], self.numbers[chosen], self.sizes[chosen])


@dataclass(frozen=True, eq=False)
class PooledErrands(Errands):
    """Visits to workers that keep nothing from one to the next, but for optimizer states.

    Args:
        pool: Their samples.
        seed: Seed of the run, from which their streams' and their own randomness derive.
        visit: What is asked of all alike; seed, first step and number of steps in it do not count.
        workers: Their names.
        first: Number of each visit's first batch.
        steps: Local steps of each.
        samples: Samples of each worker.
        every: Batches of a local epoch of each.
        states_kept: The optimizer states that workers keep; ``None`` where they keep none.
        metrics_of_each: As of `Errands`.
        drawn: What they read, where that has been drawn already.
    """

    pool: RowPool
    seed: int
    visit: Visit
    workers: Sequence[str]
    first: Numbers
    steps: Numbers
    samples: Numbers
    every: Numbers
    states_kept: KeptStates | None = None
    metrics_of_each: bool = True
    drawn: _Drawn | None = None

    @property
    @override
    def why_not(self) -> str:
        reason = "" if self.states_kept is None else why_not_stacked(self.states_kept, self.workers)
        return reason or super().why_not

    @override
    def one(self, number: int) -> Errand:
        worker = self.workers[number]
        visit = replace(
            self.visit,
            first_step=int(self.first[number]),
            steps=int(self.steps[number]),
            seed=self._seed_of(worker),
        )
        stream = KeyedStream(self.pool.shard(worker), self.seed, worker)
        return Errand(stream, WorkerMemory("reset"), visit)

    @override
    def some(self, numbers: Sequence[int] | Numbers) -> PooledErrands:
        chosen = np.asarray(numbers)
        return replace(
            self,
            workers=[self.workers[number] for number in chosen.tolist()],
            first=self.first[chosen],
            steps=self.steps[chosen],
            samples=self.samples[chosen],
            every=self.every[chosen],
            drawn=None if self.drawn is None else self.drawn.some(chosen),
        )

    @override
    def of_chunks(self, chunks: Sequence[Numbers]) -> Iterator[PooledErrands]:
        left = list(chunks)
        while left:
            group = left[: self._chunks_at_once(left[0])]
            del left[: len(group)]
            if len(group) == 1:
                yield self.some(group[0])
                continue
            every = self.some(np.concatenate(group))
            every = replace(every, drawn=_Drawn(every.rows(), *every.batch_numbers()))
            stops = np.cumsum([len(own) for own in group])
            yield from (
                every.some(np.arange(stop - len(own), stop)) for stop, own in zip(stops, group, strict=True)
            )

    def _chunks_at_once(self, chunk: Numbers) -> int:
        longest = int(self.steps.max()) * self.pool.settings.batch_size
        return max(1, _ROWS_AHEAD // (len(chunk) * longest))

    def alone(self) -> PooledErrands:
        """Return the same visits without what other workers have."""
        return replace(self, pool=self.pool.part(self.workers))

    def read_from(self, pool: RowPool) -> PooledErrands:
        """Return the same visits with their samples elsewhere.

        Args:
            pool: The same samples of the same workers.
        """
        return replace(self, pool=pool)

    def are_those_of(self, others: PooledErrands) -> bool:
        """Tell whether others ask the same of the same workers, whose samples may lie elsewhere.

        Args:
            others: Visits of a run whose workers have the same samples.
        """
        kept = self.states_kept is None and others.states_kept is None
        alike = ("seed", "visit", "metrics_of_each")
        columns = ("first", "steps", "samples", "every")
        return (
            kept
            and list(self.workers) == list(others.workers)
            and all(getattr(self, name) == getattr(others, name) for name in alike)
            and all(np.array_equal(getattr(self, name), getattr(others, name)) for name in columns)
        )

    @override
    def shortened(self, steps: int) -> PooledErrands:
        visit = replace(self.visit, requires_finite=False)
        return replace(self, visit=visit, steps=np.minimum(self.steps, steps), states_kept=None, drawn=None)

    @override
    def first_sizes(self) -> Numbers:
        sizes: Numbers = self._sizes(self.first % self.every)
        return sizes

    @override
    def seeds(self) -> list[int]:
        seeds: list[int] = derive_seeds(self.seed, "local", self.visit.round, each=[self.workers]).tolist()
        return seeds

    @override
    def batches(self, *, numbered: bool, device: torch.device) -> ChunkBatches:
        numbers, sizes = self.batch_numbers()
        return GatheredBatches(self.pool.tensors, self.rows(), sizes, numbers if numbered else None, device)

    def rows(self) -> torch.Tensor:
        """Return which rows of the pool each visit reads, as `RowPool.rows`."""
        if self.drawn is not None:
            return self.drawn.rows
        return self.pool.rows(self.workers, self.first, self.steps, seed=self.seed)

    def batch_numbers(self) -> tuple[Numbers, Numbers]:
        """Return the numbers of the batches within their local epochs, and how many samples each has.

        Returns:
            Both of shape ``(visits, steps of the longest)``; what stands behind those of a shorter visit does
            not matter.
        """
        if self.drawn is not None:
            return self.drawn.numbers, self.drawn.sizes
        numbers = numbers_of(self.first, self.every, self.steps)
        return numbers, self._sizes(numbers.T).T

    @override
    def chunks(self, size: int) -> list[Numbers]:
        order = np.lexsort((self.first % self.every, self.samples, -self.steps))
        alike = [order]
        if self.states_kept is not None:
            kinds = kinds_of(self.states_kept, self.workers)[order]
            alike = [order[kinds == kind] for kind in np.unique(kinds)]
        return [some[start : start + size] for some in alike for start in range(0, len(some), size)]

    @override
    def states(self) -> StartStates:
        return {} if self.states_kept is None else starts_of(self.states_kept, self.workers)

    @override
    def put_down(self, numbers: Sequence[int], optimizer: StackedOptimizer) -> None:
        if self.states_kept is not None:
            for some, stacks in optimizer.left_by(numbers):
                self.states_kept.keep_stacked([self.workers[number] for number in some], stacks)

    def _sizes(self, numbers: Numbers) -> Numbers:
        """Return how many samples batches have, given their numbers in their epochs, ``(..., visits)``."""
        size = self.pool.settings.batch_size
        last = np.minimum(self.samples - (self.every - 1) * size, size)
        sizes: Numbers = np.where(numbers == self.every - 1, last, size)
        return sizes

    def _seed_of(self, worker: str) -> int:
        return derive_seed(self.seed, "local", self.visit.round, worker)
