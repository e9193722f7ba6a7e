"""One worker's parts of several train loaders, read together: its batches are collections of batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, repeat
from typing import Any, Literal, get_args

from torch.utils._pytree import tree_map

from fedlightning.data.shard import Shard
from fedlightning.workers import program
from fedlightning.workers.payload import payload_bytes
from fedlightning.workers.random import derive_seed

CombinationMode = Literal["min_size", "max_size", "max_size_cycle"]
"""When a local epoch ends: with the shortest part; with the longest, ``None`` in place of what others lack;
or with the longest, while the others begin anew. As in Lightning's ``CombinedLoader``."""

_LENGTHS: Mapping[str, Callable[[Sequence[int]], int]] = {
    "min_size": min,
    "max_size": max,
    "max_size_cycle": max,
}


def count_combined(batches: Sequence[int], mode: CombinationMode) -> int:
    """Return how many batches an epoch of several parts has; none where one of them has none.

    Args:
        batches: Batches in an epoch of each part.
        mode: When the epoch ends.

    Raises:
        ValueError: There is no such mode.
    """
    if mode not in _LENGTHS:
        expected = ", ".join(map(repr, get_args(CombinationMode)))
        raise ValueError(f"mode must be one of {expected} to train at several workers, got {mode!r}.")
    return 0 if 0 in batches else _LENGTHS[mode](batches)


class CombinedShard:
    """Hold a worker's parts of several loaders, as `Shard` holds that of one.

    Each part has a shuffling of its own, and each is a pure function of (seed, worker, number of the batch).

    Args:
        parts: One shard per loader.
        mode: When a local epoch ends.
        layout: What a batch looks like: the number of a part in the place of its batch, in nested tuples,
            lists and dicts.

    Raises:
        ValueError: There is no such mode.

    Example:
        >>> from fedlightning.data import LoaderSettings
        >>> settings = LoaderSettings(batch_size=2)
        >>> parts = [Shard([1, 2, 3], settings), Shard([7], settings)]
        >>> both = CombinedShard(parts, "max_size_cycle", {"a": 0, "b": 1})
        >>> for batch in both.batches(0, 2, seed=0, worker="bob"):
        ...     print({name: part.tolist() for name, part in batch.items()})
        {'a': [1, 2], 'b': [7]}
        {'a': [3], 'b': [7]}
    """

    def __init__(self, parts: Sequence[Shard], mode: CombinationMode, layout: Any) -> None:
        self.num_batches = count_combined([part.num_batches for part in parts], mode)
        self.num_samples = sum(part.num_samples for part in parts)
        self._parts = list(parts)
        self._mode = mode
        self._layout = layout

    @property
    def parts(self) -> Sequence[Shard]:
        """One shard per loader."""
        return self._parts

    def batches(self, first: int, count: int, *, seed: int, worker: str) -> Iterator[Any]:
        """Read some batches of the endless stream; as `Shard.batches`."""
        numbers = range(first, first + count)
        columns = [
            self._column(part, numbers, derive_seed(seed, "loader", position), worker)
            for position, part in enumerate(self._parts)
        ]
        for row in zip(*columns, strict=True):
            yield tree_map(row.__getitem__, self._layout)

    def _column(self, part: Shard, numbers: range, seed: int, worker: str) -> Iterator[Any]:
        """Read what a part has to say to some batches: in long runs, which loader processes read ahead in."""
        own = [self._number_in(part, number) for number in numbers]
        for _, run in groupby(enumerate(own), lambda pair: None if pair[1] is None else pair[1] - pair[0]):
            (_, start), *rest = run
            if start is None:
                yield from repeat(None, 1 + len(rest))
            else:
                yield from part.batches(start, 1 + len(rest), seed=seed, worker=worker)

    def _number_in(self, part: Shard, number: int) -> int | None:
        """Return the number of a part's own batch in a batch of all; ``None`` where it has none."""
        epoch, position = divmod(number, self.num_batches)
        turn, within = divmod(position, part.num_batches)
        if turn > 0 and self._mode == "max_size":
            return None
        turns = -(-self.num_batches // part.num_batches) if self._mode == "max_size_cycle" else 1
        return (epoch * turns + turn) * part.num_batches + within

    def in_order(self) -> Iterator[Any]:
        """Yield every sample of the first part once, as a validation that knows nothing of others expects."""
        return self._parts[0].in_order()

    def shuffled(self) -> CombinedShard:
        """Return the same data, each part of it read in random order up to its last sample."""
        return CombinedShard([part.shuffled() for part in self._parts], self._mode, self._layout)

    def label_counts(self) -> Counter[Any] | None:
        """Count the samples of each class over all parts; None if one of them does not show its labels."""
        counts = [part.label_counts() for part in self._parts]
        known = [count for count in counts if count is not None]
        return sum(known, Counter()) if len(known) == len(counts) else None

    def __repr__(self) -> str:
        return f"CombinedShard({self._mode}, {', '.join(map(repr, self._parts))})"


@payload_bytes.register
def _(value: CombinedShard) -> int:
    return sum(map(payload_bytes, value._parts))


@program(returns="data")
def combine_shards(parts: Sequence[Shard], mode: CombinationMode, layout: Any) -> CombinedShard:
    """Combine the shards that lie at this worker; see `CombinedShard` for the arguments."""
    return CombinedShard(parts, mode, layout)
