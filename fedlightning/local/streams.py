"""A worker's data as an endless stream of numbered batches, opened once per fit and kept at the worker.

How a shard makes batches lives in ``data.shard``; this module only chooses whose randomness shuffles them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from typing_extensions import override

from fedlightning.data.shard import Shard
from fedlightning.local.randomness import capture_global_streams, restore_global_streams
from fedlightning.workers import program


class Stream(ABC):
    """The batches of one worker.

    Args:
        shard: The worker's data and how it is loaded.
    """

    def __init__(self, shard: Shard) -> None:
        self.shard = shard

    @abstractmethod
    def begin_epoch(self) -> None:
        """Note that an epoch of the Trainer begins."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return what it takes to go on in the middle of an epoch, as plain values."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was called."""

    @contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        """Go back to where the stream stood, and to the random numbers drawn since, if the block raises."""
        yield

    @abstractmethod
    def take(self, first: int, steps: int) -> Iterator[tuple[int, Any]]:
        """Yield ``(number within the local epoch, batch)`` for ``steps`` batches from number ``first`` on."""


class KeyedStream(Stream):
    """Batches shuffled by a pure function of (seed, worker, local epoch): any slice, at any time, again.

    Args:
        shard: The worker's data.
        seed: Seed of the run.
        worker: Name of the worker.
    """

    def __init__(self, shard: Shard, seed: int, worker: str) -> None:
        super().__init__(shard)
        self._seed = seed
        self._worker = worker

    @override
    def begin_epoch(self) -> None:
        """Do nothing: local epochs are counted in batches, whatever the Trainer's are."""

    @override
    def state_dict(self) -> dict[str, Any]:
        return {}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing: any slice can be read at any time."""

    @override
    def take(self, first: int, steps: int) -> Iterator[tuple[int, Any]]:
        batches = self.shard.batches(first, steps, seed=self._seed, worker=self._worker)
        for number, batch in zip(range(first, first + steps), batches, strict=True):
            yield number % self.shard.num_batches, batch


class OrdinaryStream(Stream):
    """Batches as the user's own DataLoader yields them, shuffled from the process's global stream.

    For a worker that is alone: its iterator is opened when the Trainer opens that of an epoch and read
    batch by batch, so that random numbers are drawn just as in an ordinary ``fit``. It goes on where the
    last visit stopped, whatever the number of the first batch.
    """

    def __init__(self, shard: Shard) -> None:
        super().__init__(shard)
        self._loader = shard.ordinary_loader()
        self._iterator: Iterator[tuple[int, Any]] = iter(())
        self._taken = 0
        self._opened_with: dict[str, Any] = {}

    @override
    def begin_epoch(self) -> None:
        self._taken = 0
        self._opened_with = capture_global_streams()
        self._iterator = enumerate(self._loader)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"opened_with": self._opened_with, "taken": self._taken}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Open the epoch with the random numbers that it was opened with, and pass over what was taken."""
        restore_global_streams(state["opened_with"])
        self.begin_epoch()
        for _ in self.take(0, state["taken"]):
            pass

    @override
    @contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        stood_at, streams = self.state_dict(), capture_global_streams()
        try:
            yield
        except BaseException:
            self.load_state_dict(stood_at)
            restore_global_streams(streams)
            raise

    @override
    def take(self, first: int, steps: int) -> Iterator[tuple[int, Any]]:
        for _ in range(steps):
            item = next(self._iterator, None)
            if item is None:
                self.begin_epoch()
                item = next(self._iterator)
            self._taken += 1
            yield item


@program(returns="data")
def open_stream(shard: Shard, *, seed: int, worker: str, alone: bool) -> Stream:
    """Open the stream of a worker's shard; it stays at the worker.

    Args:
        shard: The worker's data.
        seed: Seed of the run.
        worker: Name of the worker.
        alone: Whether it is the only worker, and shuffles as an ordinary ``fit`` does.
    """
    return OrdinaryStream(shard) if alone else KeyedStream(shard, seed, worker)


@program(returns="metadata")
def begin_epoch(stream: Stream) -> None:
    """Tell a worker's stream that an epoch of the Trainer begins."""
    stream.begin_epoch()


@program(returns="metadata")
def export_stream(stream: Stream) -> dict[str, Any]:
    """Return where a worker's stream stands, for a checkpoint in the middle of an epoch."""
    return stream.state_dict()


@program(returns="metadata")
def import_stream(stream: Stream, state: Mapping[str, Any]) -> None:
    """Let a worker's stream go on where a checkpoint was taken."""
    stream.load_state_dict(state)
