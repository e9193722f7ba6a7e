"""A worker's data as an endless stream of numbered batches, opened once per fit and kept at the worker.

How a shard makes batches lives in ``data.shard``; this module only chooses whose randomness shuffles them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor
from typing_extensions import override

from fedlightning.data.combined_shard import CombinedShard
from fedlightning.data.shard import Shard
from fedlightning.data.whole_loader import WholeLoader
from fedlightning.workers import program


class Stream(ABC):
    """The batches of one worker.

    Args:
        shard: The worker's data and how it is loaded.
    """

    def __init__(self, shard: Shard | CombinedShard | WholeLoader) -> None:
        self.shard = shard

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return what it takes to go on in the middle of an epoch, as plain values."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was called."""

    def kept_on_failure(self) -> AbstractContextManager[None]:
        """Go back to where the stream stood, and to the random numbers drawn since, if the block raises."""
        return nullcontext()

    @abstractmethod
    def take(self, first: int, steps: int) -> Iterator[tuple[int, Any]]:
        """Yield ``(number within the local epoch, batch)`` for ``steps`` batches from number ``first`` on.

        Fewer, where the data ends before.
        """

    @abstractmethod
    def peek(self, steps: int) -> Iterator[tuple[int, Any]]:
        """Yield the first ``steps`` batches of the first local epoch, without moving on.

        Raises:
            TypeError: The data can be read only in passing.
        """

    def ends_after(self, batch_idx: int) -> bool:
        """Tell whether the local epoch ends with a batch, given its number."""
        return batch_idx + 1 == self.shard.num_batches


class KeyedStream(Stream):
    """Batches shuffled by a pure function of (seed, worker, local epoch): any slice, at any time, again.

    Args:
        shard: The worker's data.
        seed: Seed of the run.
        worker: Name of the worker.
    """

    def __init__(self, shard: Shard | CombinedShard, seed: int, worker: str) -> None:
        super().__init__(shard)
        self._numbered = shard
        self._seed = seed
        self._worker = worker

    @override
    def state_dict(self) -> dict[str, Any]:
        return {}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing: any slice can be read at any time."""

    @property
    def memory(self) -> tuple[Tensor, ...] | None:
        """The tensors that batches are rows of, where that is all there is to them; else ``None``."""
        return self._numbered.memory if isinstance(self._numbered, Shard) else None

    def batch_sizes(self, first: int, steps: int) -> list[int]:
        """Return how many samples the batches have that `take` yields, of data in one `memory`."""
        assert isinstance(self._numbered, Shard)
        return self._numbered.batch_sizes(first, steps)

    def rows(self, first: int, steps: int) -> Tensor:
        """Return which rows of `memory` these batches consist of, one after the other, int64."""
        assert isinstance(self._numbered, Shard)
        return self._numbered.rows(first, steps, seed=self._seed, worker=self._worker)

    @override
    def take(self, first: int, steps: int) -> Iterator[tuple[int, Any]]:
        batches = self._numbered.batches(first, steps, seed=self._seed, worker=self._worker)
        of_epoch = self.shard.num_batches
        for number, batch in zip(range(first, first + steps), batches, strict=True):
            yield number % of_epoch, batch

    @override
    def peek(self, steps: int) -> Iterator[tuple[int, Any]]:
        return self.take(0, steps)


@program(returns="data")
def open_stream(shard: Shard | CombinedShard, *, seed: int, worker: str) -> Stream:
    """Open the stream of a worker's shard; it stays at the worker.

    Args:
        shard: The worker's data.
        seed: Seed of the run.
        worker: Name of the worker.
    """
    return KeyedStream(shard, seed, worker)


@program(returns="metadata")
def export_stream(stream: Stream) -> dict[str, Any]:
    """Return where a worker's stream stands, for a checkpoint in the middle of an epoch."""
    return stream.state_dict()


@program(returns="metadata")
def import_stream(stream: Stream, state: Mapping[str, Any]) -> None:
    """Let a worker's stream go on where a checkpoint was taken."""
    stream.load_state_dict(state)
