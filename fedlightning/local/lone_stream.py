"""The stream of a worker that is alone: the user's own loaders, read when the Trainer reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning_utilities.core.apply_func import apply_to_collection
from torch.utils.data import DataLoader
from typing_extensions import override

from fedlightning.data.shard import Shard
from fedlightning.data.whole_loader import UNKNOWN, WholeLoader
from fedlightning.local.randomness import capture_global_streams, restore_global_streams
from fedlightning.local.reader import Found, Reader
from fedlightning.local.streams import Stream
from fedlightning.workers import program


class LoneStream(Stream):
    """Batches as the user's own loaders yield them, shuffled from the process's global stream.

    The Trainer opens the loaders and has each batch fetched just when it would in an ordinary ``fit``; a
    visit takes what was fetched, and reads on. Asked for the same single batch again, as by an optimizer
    that evaluates its closure several times, it gives the same.

    Args:
        shard: The first loader.
        goes_round: Whether loaders are opened again where they end before the Trainer's epoch does.
    """

    def __init__(self, shard: Shard | WholeLoader, *, goes_round: bool) -> None:
        super().__init__(shard)
        self._goes_round = goes_round
        self.readers: list[Reader] = []
        self._pick: Any = 0
        self._batch_idx: int | None = None
        self._combination: tuple[str, int] | None = None
        self._position = 0
        self._last: tuple[int, tuple[int, Any]] | None = None
        self.add(shard)

    def add(self, shard: Shard | WholeLoader) -> None:
        """Hold one more loader."""
        loader = shard.ordinary_loader()
        # A loader that keeps its own place is asked for it by the Trainer.
        replays = isinstance(loader, DataLoader) and not hasattr(loader, "state_dict")
        self.readers.append(Reader(loader, goes_round=self._goes_round, replays=replays))

    def combine(self, mode: str, batches: int) -> None:
        """Combine the loaders in visits of several steps, as Lightning's ``CombinedLoader`` would.

        Args:
            mode: Its mode: ``"min_size"``, ``"max_size"`` or ``"max_size_cycle"``.
            batches: Of an epoch.
        """
        self._combination = mode, batches
        for reader in self.readers:
            reader.goes_round = False

    def open(self, number: int) -> None:
        """Open a loader: from its start, or once where a checkpoint left it."""
        reader = self.readers[number]
        if number == 0 and not reader.resumes:
            self._position = 0
        reader.open()

    def taken(self, number: int) -> int:
        """Return how many batches were taken of a loader, or of all combined, since it was opened."""
        return self.readers[number].taken if self._combination is None else self._position

    def forget(self) -> None:
        """Let go of the batch that could be asked for once more."""
        self._last = None

    def pick(self, pick: Any, batch_idx: int) -> None:
        """Say how the coming batch is put together.

        Args:
            pick: The number of a loader, or a collection with such numbers in the places of their batches.
            batch_idx: The batch's number within the Trainer's epoch.
        """
        self._pick, self._batch_idx = pick, batch_idx

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "readers": [reader.state_dict() for reader in self.readers],
            "position": self._position,
        }

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._position = state.get("position", 0)  # the first checkpoints had none
        for reader, saved in zip(self.readers, state["readers"], strict=False):
            reader.load_state_dict(saved)

    @override
    @contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        stood_at, streams = self.state_dict(), capture_global_streams()
        try:
            yield
        except BaseException:
            self._last = None
            self.load_state_dict(stood_at)
            for reader in self.readers:
                reader.go_back()
            restore_global_streams(streams)
            raise

    @override
    def take(self, first: int, steps: int) -> Iterator[tuple[int, Any]]:
        if steps == 1 and self._last is not None and self._last[0] == first:
            yield self._last[1]
            return
        for _ in range(steps):
            try:
                batch = self._next()
            except StopIteration:
                return
            number = self._number()
            if steps == 1:
                self._last = (first, (number, batch))
            yield number, batch

    @override
    def peek(self, steps: int) -> Iterator[tuple[int, Any]]:
        raise TypeError(
            "the only worker of a federation reads the user's loader as it comes, and cannot read ahead. Use "
            "workers=2 or more for an algorithm that fine-tunes before an evaluation."
        )

    def _next(self) -> Any:
        if self._combination is None:
            return apply_to_collection(self._pick, int, lambda number: self.readers[number].take())
        if self._position and self._position % self._combination[1] == 0:
            for reader in self.readers:
                reader.open()
        batch = apply_to_collection(self._pick, int, self._part_of_combination)
        self._position += 1
        return batch

    def _part_of_combination(self, number: int) -> Any:
        assert self._combination is not None
        reader = self.readers[number]
        if reader.at_end():
            if self._combination[0] == "max_size":
                return None
            reader.open()
        return reader.take()

    @override
    def ends_after(self, batch_idx: int) -> bool:
        known = self.shard.num_batches if self._combination is None else self._combination[1]
        if len(self.readers) == 1 and known == UNKNOWN:
            return self.readers[0].at_end()
        return batch_idx + 1 == known

    def _number(self) -> int:
        if self._combination is not None:
            return (self._position - 1) % self._combination[1]
        if self._batch_idx is None:
            return self.readers[0].taken - 1
        number, self._batch_idx = self._batch_idx, self._batch_idx + 1
        return number


@program(returns="data")
def open_lone_stream(shard: Shard | WholeLoader, *, goes_round: bool) -> LoneStream:
    """Open the stream of a worker that is alone; it stays at the worker."""
    return LoneStream(shard, goes_round=goes_round)


@program(returns="metadata")
def add_loader(stream: LoneStream, shard: WholeLoader) -> None:
    """Give the stream one more of the user's loaders."""
    stream.add(shard)


@program(returns="metadata")
def open_loader(stream: LoneStream, number: int) -> None:
    """Open a loader, as the Trainer does at the start of an epoch."""
    stream.open(number)


@program(returns="metadata")
def fetch_batch(stream: LoneStream, number: int, beyond: int, keeps_nothing: bool) -> Found:
    """Have a loader's next batch read, which stays at the worker; arguments as for `Reader.fetch`."""
    return stream.readers[number].fetch(beyond, keeps_nothing=keeps_nothing)


@program(returns="metadata")
def pick_batch(stream: LoneStream, pick: Any, batch_idx: int) -> None:
    """Say of which loaders' batches the coming one is put together."""
    stream.pick(pick, batch_idx)


@program(returns="metadata")
def combine_loaders(stream: LoneStream, mode: str, batches: int) -> None:
    """Combine the loaders in visits of several steps; arguments as for `LoneStream.combine`."""
    stream.combine(mode, batches)


@program(returns="metadata")
def batches_taken(stream: LoneStream, number: int) -> int:
    """Return how many batches were taken of a loader, or of all combined, since it was opened."""
    return stream.taken(number)


@program(returns="metadata")
def close_loaders(stream: LoneStream) -> None:
    """Let go of what reading the loaders has opened, at the end of a fit."""
    stream.forget()
    for reader in stream.readers:
        reader.close()
