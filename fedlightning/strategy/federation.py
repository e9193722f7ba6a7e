"""The workers of one run with what lies there: shard, stream of batches, memory. Reached by pointer only.

Who trains when is drawn up in ``algorithms``; this module only places things and looks them up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlightning.data import IID, FederatedDataLoader, LoaderSettings, Partitioner, Shard
from fedlightning.local.evaluation import count_batches, count_samples
from fedlightning.local.memory import OptimizerState, create_memory, export_memory, import_memory
from fedlightning.local.streams import begin_epoch, export_stream, import_stream, open_stream
from fedlightning.workers import VirtualWorker, Worker

DEFAULT_WORKERS = 10


@dataclass(frozen=True)
class Member:
    """One worker of a federation.

    Args:
        worker: The worker.
        shard: Pointer to its data and how it is loaded.
        stream: Pointer to its stream of batches.
        memory: Pointer to what it keeps between visits.
        samples: Number of its samples.
        batches: Number of batches in its local epoch.
    """

    worker: Worker
    shard: Any
    stream: Any
    memory: Any
    samples: int
    batches: int


class Federation:
    """The members of one run, by name.

    Args:
        shards: For each worker, the pointer to its shard.
        seed: Seed of the run.
        optimizer_state: What becomes of local optimizer states between visits.
    """

    def __init__(
        self, shards: Iterable[tuple[Worker, Any]], *, seed: int, optimizer_state: OptimizerState
    ) -> None:
        shards = list(shards)
        self.alone = len(shards) == 1
        self.members: Mapping[str, Member] = {
            worker.id: Member(
                worker=worker,
                shard=shard,
                stream=worker.start(open_stream, shard, seed=seed, worker=worker.id, alone=self.alone),
                memory=worker.start(create_memory, optimizer_state),
                samples=worker.run(count_samples, shard),
                batches=worker.run(count_batches, shard),
            )
            for worker, shard in shards
        }
        empty = [name for name, member in self.members.items() if member.batches == 0]
        if empty:
            raise ValueError(
                f"workers {empty} have no full batch to train on: their shards are smaller than the batch "
                "size, and drop_last=True drops the rest. Use drop_last=False, a smaller batch_size or "
                "fewer workers."
            )

    @property
    def batches(self) -> dict[str, int]:
        """Batches in a local epoch, by worker name."""
        return {name: member.batches for name, member in self.members.items()}

    def begin_epoch(self) -> None:
        """Tell every worker that an epoch of the Trainer begins."""
        for member in self.members.values():
            member.worker.run(begin_epoch, member.stream)

    def state_dict(self) -> dict[str, Any]:
        """Return what the workers keep between visits, by name: memory, and where the stream stands."""
        return {
            name: {
                "memory": member.worker.run(export_memory, member.memory),
                "stream": member.worker.run(export_stream, member.stream),
            }
            for name, member in self.members.items()
        }

    def load_state_dict(self, state: Mapping[str, Any], *, streams: bool) -> None:
        """Give the workers what was saved.

        Args:
            state: What ``state_dict`` returned.
            streams: Whether their streams go on, too, in the middle of an epoch.
        """
        for name, member in self.members.items():
            member.worker.run(import_memory, member.memory, state[name]["memory"])
            if streams:
                member.worker.run(import_stream, member.stream, state[name]["stream"])


def shards_of_ordinary_loader(
    loader: Any, workers: int | Sequence[Worker] | None, partition: Partitioner | None, seed: int
) -> list[tuple[Worker, Any]]:
    """Cut the dataset of an ordinary loader into shards and register each at a worker.

    Args:
        loader: The user's ``DataLoader``: its batch size, shuffling, ``collate_fn`` and ``drop_last`` stay.
        workers: Workers that exist, or a number of virtual ones; ``None`` for as many as the partition
            finds in the data, or ten.
        partition: How samples are divided; ``None`` for IID.
        seed: Seed of the run.

    Returns:
        Each worker with the pointer to its shard.

    Raises:
        TypeError: The loader or its dataset cannot be divided; says what is possible instead.
        ValueError: There are more workers than samples, or a worker name is given twice.
    """
    settings = LoaderSettings.from_loader(loader)
    partition = partition if partition is not None else IID()
    named_by_data = partition.worker_names(loader.dataset) is not None
    count = len(workers) if isinstance(workers, Sequence) else workers
    if count is None and not named_by_data:
        count = DEFAULT_WORKERS
    parts = partition.split(loader.dataset, count, seed)
    names = parts.worker_names or numbered_names(len(parts))
    hosts = list(workers) if isinstance(workers, Sequence) else [VirtualWorker(id=name) for name in names]
    indices = parts.for_workers([host.id for host in hosts])
    return [
        (host, host.register(Shard.of(loader.dataset, part, settings), tags=("shard",)))
        for host, part in zip(hosts, indices, strict=True)
    ]


def shards_of_federated_loader(
    loader: FederatedDataLoader, workers: int | Sequence[Worker] | None
) -> list[tuple[Worker, Any]]:
    """Make a shard at each worker of a federated loader, out of the data that lies there already.

    Args:
        loader: Says where the data lies.
        workers: What the user asked for, which must be those of the data; ``None`` takes them.

    Returns:
        Each worker with the pointer to its shard.

    Raises:
        ValueError: The data lies at other workers than asked for.
    """
    _check_workers_of_data([worker.id for worker in loader.dataset.workers], workers)
    return [(placement.worker, placement.as_shard()) for placement in loader.placements()]


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
