"""Which workers there are: the local one, and whether a group of names is unique."""

from __future__ import annotations

from collections.abc import Iterable

from fedlightning.pointers.location import set_controller
from fedlightning.workers.virtual import VirtualWorker
from fedlightning.workers.worker import Worker

local_worker = VirtualWorker(id="me")
set_controller(local_worker)


def check_unique_ids(workers: Iterable[Worker]) -> None:
    """Make sure that workers who are to work together have different names.

    Args:
        workers: The workers of a federation.

    Raises:
        ValueError: Two of them have the same name, or one is given twice.

    Example:
        >>> check_unique_ids([VirtualWorker(id="bob"), VirtualWorker(id="bob")])
        Traceback (most recent call last):
        ...
        ValueError: workers holds two workers with id='bob': ...
    """
    seen: set[str] = set()
    for worker in workers:
        if worker.id in seen:
            raise ValueError(
                f"workers holds two workers with id={worker.id!r}: give each its own id, "
                f"and use the newest worker if the cell that makes them was run twice"
            )
        seen.add(worker.id)
