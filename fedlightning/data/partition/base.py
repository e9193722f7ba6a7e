"""What every partitioner promises, and the one place where the promise is checked.

How samples are chosen lives in the other modules of this package, one idea each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from html import escape
from typing import Any, ClassVar, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset, Subset
from typing_extensions import override

from fedlightning.data.checks import check_count
from fedlightning.data.input_change import InputChange, Where, with_changed_inputs
from fedlightning.data.map_style import MapStyle, check_map_style
from fedlightning.workers.ledger_table import as_html
from fedlightning.workers.random import derive_seed

Indices: TypeAlias = npt.NDArray[np.int64]

_SHOWN_WORKERS = 20


@dataclass(frozen=True, eq=False, repr=False)
class Partition:
    """Say which samples lie at which worker.

    Args:
        indices: For each worker the numbers of its samples, ascending, dtype int64.
        worker_names: Names that the data gives to the workers (groups of a natural partition), or None.
        in_order: Whether each part is meant for the worker at its position; drawn ones could be anybody's.
        changes: What the inputs of each worker go through, or None where they stay as they are.
        inputs: Where in a sample the inputs are: their position, or their key.

    Example:
        >>> halves = Partition((np.array([0, 2]), np.array([1])), worker_names=("bob", "alice"))
        >>> halves.sizes, [part.tolist() for part in halves.for_workers(["alice", "bob"])]
        ((2, 1), [[1], [0, 2]])
    """

    indices: tuple[Indices, ...]
    worker_names: tuple[str, ...] | None = None
    in_order: bool = True
    changes: tuple[InputChange, ...] | None = None
    inputs: Where = 0

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of samples at each worker."""
        return tuple(len(part) for part in self.indices)

    @override
    def __repr__(self) -> str:
        sizes = self.sizes
        return f"Partition({len(sizes)} workers, {min(sizes)} to {max(sizes)} of {sum(sizes):,} samples each)"

    def _repr_html_(self) -> str:
        names = self.worker_names or tuple(map(str, range(len(self))))
        whole = max(sum(self.sizes), 1)
        rows = [
            {"worker": name, "samples": size, "share": f"{size / whole:.1%}"}
            for name, size in zip(names, self.sizes, strict=True)
        ]
        hidden = len(rows) - _SHOWN_WORKERS
        more = f"<p>... and {hidden} more</p>" if hidden > 0 else ""
        table = as_html(("worker", "samples", "share"), rows[:_SHOWN_WORKERS])
        return f"<p>{escape(repr(self))}</p>{table}{more}"

    def for_workers(self, worker_ids: Sequence[str]) -> tuple[Indices, ...]:
        """Give each worker its samples: by name where the data names workers, otherwise by position.

        Args:
            worker_ids: Names of the workers, all different.

        Returns:
            The samples of each, in the order of ``worker_ids``.

        Raises:
            ValueError: If there are more or fewer workers than parts, or the data names others.
        """
        if self.worker_names is not None and sorted(worker_ids) != sorted(self.worker_names):
            raise ValueError(
                f"workers={list(worker_ids)}, but the partition names {list(self.worker_names)}. Give "
                "workers with these ids, or let the strategy make them."
            )
        if len(worker_ids) != len(self):
            raise ValueError(
                f"{len(worker_ids)} workers for {len(self)} parts; give as many workers as parts."
            )
        by_name = dict(zip(self.worker_names or worker_ids, self.indices, strict=True))
        return tuple(by_name[worker_id] for worker_id in worker_ids)

    def by_name(self, worker_ids: Sequence[str]) -> dict[str, Indices]:
        """Give each worker its samples: the same ones to the same names, in whatever order they are listed.

        Only where the user has written down whose each part is, and no names, does the order count.

        Args:
            worker_ids: Names of the workers, all different.

        Returns:
            The samples of each, by name, in the order of ``worker_ids``.

        Raises:
            ValueError: As `for_workers`.
        """
        order = worker_ids if self.in_order else sorted(worker_ids)
        parts = dict(zip(order, self.for_workers(order), strict=True))
        return {worker_id: parts[worker_id] for worker_id in worker_ids}

    def changes_by_name(self, worker_ids: Sequence[str]) -> dict[str, InputChange]:
        """Return what the inputs of each worker go through; nothing where they stay as they are.

        Args:
            worker_ids: Names of the workers, as `by_name` takes them.
        """
        if self.changes is None:
            return {}
        in_order = worker_ids if self.in_order else sorted(worker_ids)
        order = in_order if self.worker_names is None else self.worker_names
        return dict(zip(order, self.changes, strict=True))

    def part(self, dataset: MapStyle, position: int) -> MapStyle:
        """Return the data of one worker, to look at.

        Args:
            dataset: The dataset that was divided.
            position: Number of the worker, from 0.
        """
        change = None if self.changes is None else self.changes[position]
        return part_of(dataset, self.indices[position], change, self.inputs)

    def __len__(self) -> int:
        return len(self.indices)


def part_of(
    dataset: MapStyle, indices: Indices, change: InputChange | None = None, inputs: Where = 0
) -> MapStyle:
    """Return some samples of a dataset, with what their inputs go through.

    Args:
        dataset: The dataset.
        indices: Numbers of the samples.
        change: What their inputs go through, if anything.
        inputs: Where in a sample the inputs are.
    """
    # Plain integers, because a user's dataset need not take NumPy's.
    numbers: list[int] = np.asarray(indices).tolist()
    if change is not None:
        return with_changed_inputs(dataset, numbers, change, inputs)
    return Subset(cast("Dataset[Any]", dataset), numbers)


def fingerprint_of(indices: Mapping[str, Indices], changes: Mapping[str, InputChange] | None = None) -> str:
    """Digest who has which samples, as 16 hexadecimal digits.

    How many samples each has, by name, is known beside it, and is not part of it.

    Args:
        indices: The samples of each worker, by name.
        changes: What their inputs go through, by name; nothing, unless given.
    """
    # One call for all of them: a federation may have a million workers.
    every = np.concatenate([indices[name] for name in sorted(indices)])
    digest = blake2b(every.astype("<i8").tobytes(), digest_size=8)
    for name, change in sorted((changes or {}).items()):
        digest.update(repr((name, change)).encode())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Partitioner(ABC):
    """Divide a dataset over workers: every sample at exactly one worker, and no worker without samples.

    A subclass says in `partition` which samples belong together; `split` makes the generator, sorts, and
    checks the promise. One worker always gets all samples in their order.

    Args:
        seed: Seed of this partition alone; None takes the seed of whoever calls `split`.

    Example:
        >>> class InTurn(Partitioner):
        ...     def partition(self, dataset, num_workers, rng):
        ...         return [np.arange(first, len(dataset), num_workers) for first in range(num_workers)]
        >>> [part.tolist() for part in InTurn().split(range(5), num_workers=2).indices]
        [[0, 2, 4], [1, 3]]
    """

    seed: int | None = None

    written_down: ClassVar[bool] = False
    """Whether the user has written each worker's part down, in the order of the workers."""

    def __post_init__(self) -> None:
        if self.seed is not None:
            check_count("seed", self.seed, minimum=0)

    @abstractmethod
    def partition(self, dataset: MapStyle, num_workers: int, rng: np.random.Generator) -> Sequence[Indices]:
        """Choose the samples of each worker; every random draw comes from ``rng``.

        Args:
            dataset: A map-style dataset with at least as many samples as workers.
            num_workers: Number of workers, at least 1.
            rng: Source of all randomness, seeded.

        Returns:
            One array of sample numbers per worker, in any order.
        """

    def worker_names(self, dataset: MapStyle) -> tuple[str, ...] | None:
        """Name the workers, if the data itself says who they are."""
        del dataset
        return None

    def split(self, dataset: MapStyle, num_workers: int | None = None, seed: int = 0) -> Partition:
        """Divide a dataset over workers.

        Args:
            dataset: A map-style dataset.
            num_workers: Number of workers; None where the data itself says it (`Natural`, `Explicit`).
            seed: Seed to use if this partitioner has none of its own.

        Returns:
            The samples of each worker; the same for the same dataset, number and seed.

        Raises:
            TypeError: If the dataset is not map-style.
            ValueError: If the number of workers is missing, below 1, above the number of samples, or not the
                one in the data.
        """
        num_samples = check_map_style(dataset)
        names = self.worker_names(dataset)
        num_workers = self._count_workers(names, num_workers)
        if num_workers > num_samples:
            raise ValueError(
                f"num_workers={num_workers} is more than the {num_samples} samples of "
                f"dataset={type(dataset).__name__}: some workers would have none. Use at most "
                f"{num_samples} workers, or more data."
            )
        rng = np.random.default_rng(derive_seed(seed if self.seed is None else self.seed, "partition"))
        parts = self.partition(dataset, num_workers, rng)
        return Partition(tuple(check_partition(parts, num_samples)), names, in_order=self.written_down)

    def _count_workers(self, names: tuple[str, ...] | None, num_workers: int | None) -> int:
        if num_workers is not None:
            check_count("num_workers", num_workers)
        if names is None:
            if num_workers is None:
                raise ValueError(
                    f"num_workers=None, but {type(self).__name__} does not know how many there are: give a "
                    "number."
                )
            return num_workers
        if num_workers not in (None, len(names)):
            raise ValueError(
                f"num_workers={num_workers}, but {type(self).__name__} finds {len(names)} workers in the "
                f"data. Give {len(names)} workers or none, or merge groups in the column."
            )
        return len(names)


def check_partition(parts: Sequence[Indices], num_samples: int) -> list[Indices]:
    """Sort each worker's samples and make sure that they are a partition.

    Args:
        parts: For each worker the numbers of its samples, in any order.
        num_samples: Number of samples of the dataset.

    Returns:
        The same, ascending, dtype int64.

    Raises:
        ValueError: If a worker has no samples, or a sample lies outside of the dataset, at two workers, or at
            none.
    """
    counts = np.array([len(part) for part in parts], dtype=np.int64)
    if (empty := np.flatnonzero(counts == 0)).size:
        raise ValueError(f"Worker number {empty[0]} of {len(parts)} has no samples. Use fewer workers.")
    every = np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])
    if every.min() < 0 or every.max() >= num_samples:
        raise ValueError(
            f"Sample numbers must lie in [0, {num_samples}), got {every.min()} to {every.max()}: these "
            "indices belong to another dataset."
        )
    copies = np.bincount(every, minlength=num_samples)
    if copies.max() > 1:
        raise ValueError(
            f"Sample {copies.argmax()} occurs {copies.max()} times; each must lie at exactly one worker. "
            "Remove the repetitions."
        )
    if copies.min() == 0:
        raise ValueError(
            f"{(copies == 0).sum()} of {num_samples} samples (the first is {copies.argmin()}) lie at no "
            "worker. Assign them, or give a `torch.utils.data.Subset` without them."
        )
    # Sorted in one call, by who has each sample: there may be a million parts. A small type makes it fast.
    owners = np.empty(num_samples, dtype=np.min_scalar_type(len(parts) - 1))
    owners[every] = np.repeat(np.arange(len(parts), dtype=owners.dtype), counts)
    return cut(np.argsort(owners, kind="stable"), counts)


def cut(items: Indices, counts: Indices) -> list[Indices]:
    """Cut an array into consecutive pieces of given lengths, as views: `numpy.split` takes ten times as long.

    Args:
        items: Shape ``(n,)``.
        counts: Lengths that add up to ``n``.
    """
    ends = np.cumsum(counts)
    return [items[start:end] for start, end in zip((ends - counts).tolist(), ends.tolist(), strict=True)]
