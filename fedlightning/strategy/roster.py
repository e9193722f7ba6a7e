"""Who takes part in a run and with how much data, known before anything is placed at anybody.

What lies at a worker is for ``federation`` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlightning.data import IID, FederatedDataLoader, LoaderSettings, Partitioner, Shard
from fedlightning.data.combined_shard import CombinationMode, combine_shards, count_combined
from fedlightning.data.order import count_batches
from fedlightning.data.partition.base import fingerprint_of, part_of
from fedlightning.data.pool import RowPool
from fedlightning.data.whole_loader import WholeLoader
from fedlightning.workers import VirtualWorker, Worker

DEFAULT_WORKERS = 10


@dataclass(frozen=True)
class Roster:
    """List the workers of a run.

    Args:
        samples: Number of samples, by worker name, in the order in which workers are shown.
        batches: Number of batches in a local epoch, by worker name.
        place: Returns the worker of a name with a pointer to its shard; called once for each at the most.
        at_once: Whether the workers exist, and get their data before the first round. Virtual ones are made
            when they are first visited.
        fingerprint: Returns a digest of who has which samples; ``None`` where nothing was divided here.
        pool: The samples of virtual workers, where batches are rows of tensors in memory; else ``None``.
    """

    samples: Mapping[str, int]
    batches: Mapping[str, int]
    place: Callable[[str], tuple[Worker, Any]]
    at_once: bool
    fingerprint: Callable[[], str | None] = lambda: None
    pool: RowPool | None = None


def roster_of_ordinary_loader(
    loader: Any,
    workers: int | Sequence[Worker] | None,
    partition: Partitioner | None,
    seed: int,
    hired: dict[str, Worker] | None = None,
) -> Roster:
    """Cut the dataset of an ordinary loader into shards, to be registered one at each worker.

    A worker that is alone gets the loader as it is, whatever its kind.

    Args:
        loader: The user's ``DataLoader``: its batch size, shuffling, ``collate_fn`` and ``drop_last`` stay.
        workers: Workers that exist, or a number of virtual ones; ``None`` for as many as the partition finds
            in the data, or ten.
        partition: How samples are divided; ``None`` for IID.
        seed: Seed of the run.
        hired: Virtual workers that were made for other loaders of the same run, by name; filled.

    Raises:
        TypeError: The loader or its dataset cannot be divided; says what is possible instead.
        ValueError: There are more workers than samples, or a worker name is given twice.
    """
    if partition is None or isinstance(partition, IID):
        alone = _only_worker(workers)
        if alone is not None:
            return _roster_of_one(loader, alone)
    settings = LoaderSettings.from_loader(loader)
    partition = partition if partition is not None else IID()
    named_by_data = partition.worker_names(loader.dataset) is not None
    count = len(workers) if isinstance(workers, Sequence) else workers
    if count is None and not named_by_data:
        count = DEFAULT_WORKERS
    parts = partition.split(loader.dataset, count, seed)
    existing = {worker.id: worker for worker in workers} if isinstance(workers, Sequence) else {}
    known = {} if hired is None else hired
    known.update(existing)
    names = tuple(existing) or parts.worker_names or numbered_names(len(parts))
    indices = parts.by_name(names)
    changes = parts.changes_by_name(names)
    samples = {name: len(indices[name]) for name in names}

    def place(name: str) -> tuple[Worker, Any]:
        worker = known[name] if name in known else known.setdefault(name, VirtualWorker(id=name))
        if changes:
            shard = Shard(part_of(loader.dataset, indices[name], changes[name], parts.inputs), settings)
        else:
            shard = Shard.of(loader.dataset, indices[name], settings)
        # It goes with the federation: a worker that outlives many fits must not hold the data of each.
        return worker, worker.register(shard, tags=("shard",), keep=False)

    return Roster(
        samples,
        _batches(samples, settings),
        place,
        at_once=bool(existing),
        fingerprint=lambda: fingerprint_of(indices, changes),
        pool=None if existing or changes else RowPool.of(loader.dataset, indices, settings),
    )


def _only_worker(workers: int | Sequence[Worker] | None) -> Worker | None:
    """Return the worker that can hold a whole loader: the only one, in this process."""
    if workers == 1:
        return VirtualWorker(id=numbered_names(1)[0])
    if isinstance(workers, Sequence) and len(workers) == 1 and isinstance(workers[0], VirtualWorker):
        return workers[0]
    return None


def _roster_of_one(loader: Any, worker: Worker) -> Roster:
    """Leave the loader whole: nothing has to be divided, so that any iterable of batches will do."""
    whole = WholeLoader(loader)

    def place(name: str) -> tuple[Worker, Any]:
        return worker, worker.register(whole, tags=("shard",))

    return Roster({worker.id: whole.num_samples}, {worker.id: whole.num_batches}, place, at_once=False)


def roster_of_federated_loader(loader: FederatedDataLoader, workers: int | Sequence[Worker] | None) -> Roster:
    """Make a shard at each worker of a federated loader, out of the data that lies there already.

    Args:
        loader: Says where the data lies.
        workers: What the user asked for, which must be those of the data; ``None`` takes them.

    Raises:
        ValueError: The data lies at other workers than asked for.
    """
    _check_workers_of_data([worker.id for worker in loader.dataset.workers], workers)
    placements = {placement.worker.id: placement for placement in loader.placements()}
    samples = {name: placement.num_samples for name, placement in placements.items()}

    def place(name: str) -> tuple[Worker, Any]:
        return placements[name].worker, placements[name].as_shard()

    return Roster(
        samples,
        _batches(samples, loader.settings),
        place,
        at_once=True,
        fingerprint=lambda: loader.dataset.fingerprint,
    )


def roster_of_several_loaders(
    loaders: Sequence[Any],
    workers: int | Sequence[Worker] | None,
    partition: Partitioner | None,
    seed: int,
    *,
    mode: CombinationMode,
    layout: Any,
) -> Roster:
    """Give every worker its part of each loader, to be read together there.

    Args:
        loaders: Ordinary loaders, each of which is divided like the only one of a fit, and federated ones.
        workers: As for `roster_of_ordinary_loader`; ``None`` for those of federated data, if there is any.
        partition: How samples of each ordinary loader are divided; ``None`` for IID.
        seed: Seed of the run.
        mode: When an epoch of all loaders ends.
        layout: The number of a loader in the place of its batch.

    Raises:
        TypeError: A loader cannot be divided.
        ValueError: The data of two loaders lies at different workers.
    """
    federated = [loader for loader in loaders if isinstance(loader, FederatedDataLoader)]
    if workers is None and federated:
        workers = federated[0].dataset.workers
    hired: dict[str, Worker] = {}
    rosters = [
        roster_of_federated_loader(loader, workers)
        if isinstance(loader, FederatedDataLoader)
        else roster_of_ordinary_loader(loader, workers, partition, seed, hired)
        for loader in loaders
    ]
    first, *others = rosters
    for number, other in enumerate(others, start=1):
        if sorted(other.samples) != sorted(first.samples):
            raise ValueError(
                f"the data of the first train loader lies at {sorted(first.samples)}, and that of number "
                f"{number} at {sorted(other.samples)}: their batches cannot be combined. Give every worker "
                "a part of each loader."
            )

    def place(name: str) -> tuple[Worker, Any]:
        parts = [roster.place(name) for roster in rosters]
        worker = parts[0][0]
        return worker, worker.start(combine_shards, [shard for _, shard in parts], mode, layout)

    return Roster(
        {name: sum(roster.samples[name] for roster in rosters) for name in first.samples},
        {name: count_combined([roster.batches[name] for roster in rosters], mode) for name in first.samples},
        place,
        at_once=any(roster.at_once for roster in rosters),
        fingerprint=lambda: _joined([roster.fingerprint() for roster in rosters]),
    )


def _joined(fingerprints: Sequence[str | None]) -> str | None:
    known = [fingerprint for fingerprint in fingerprints if fingerprint is not None]
    return "+".join(known) if len(known) == len(fingerprints) else None


def _batches(samples: Mapping[str, int], settings: LoaderSettings) -> dict[str, int]:
    # Most workers have as many samples as some other.
    batches = {
        count: count_batches(count, settings.batch_size, settings.drop_last) for count in {*samples.values()}
    }
    return {name: batches[count] for name, count in samples.items()}


def _check_workers_of_data(found: list[str], asked: int | Sequence[Worker] | None) -> None:
    if asked is None:
        return
    names = [worker.id for worker in asked] if isinstance(asked, Sequence) else None
    if (len(found) != asked) if names is None else (sorted(found) != sorted(names)):
        raise ValueError(
            f"workers={asked if names is None else names}, but the data of the FederatedDataLoader lies at "
            f"{found}. Leave workers out to train where the data is."
        )


def numbered_names(count: int) -> tuple[str, ...]:
    """Return names for ``count`` workers, which sort as they count.

    Example:
        >>> numbered_names(11)[-2:]
        ('worker-09', 'worker-10')
    """
    width = len(str(count - 1))
    return tuple(f"worker-{number:0{width}d}" for number in range(count))
