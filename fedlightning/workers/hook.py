"""The one place that adds methods to torch's own classes, and only when a user asks for it."""

from __future__ import annotations

from types import ModuleType
from weakref import WeakValueDictionary

from fedlightning.workers.known import local_worker
from fedlightning.workers.virtual import VirtualWorker
from fedlightning.workers.worker import Worker


class TorchHook:
    """Give tensors and modules a ``.send()``, and know workers by name.

    Making a hook again changes nothing more, and all hooks may be used side by side.

    Args:
        torch: The torch module, as the tutorials pass it; nothing else is accepted.

    Attributes:
        local_worker: The worker ``me`` that holds the pointers.
        workers: The living workers of this hook by name; the newest, where a name was used again.

    Raises:
        TypeError: Something other than torch was passed.
    """

    def __init__(self, torch: ModuleType | None = None) -> None:
        if torch is not None and getattr(torch, "__name__", None) != "torch":
            raise TypeError(f"torch={torch!r} is not the torch module: call TorchHook(torch)")
        self.local_worker: VirtualWorker = local_worker
        self.workers: WeakValueDictionary[str, Worker] = WeakValueDictionary()

    def add_worker(self, worker: Worker) -> None:
        """Know a worker by its name.

        Raises:
            ValueError: The name is the local worker's.
        """
        if worker.id == self.local_worker.id:
            raise ValueError(f"id={worker.id!r} is the local worker's name: choose another")
        self.workers[worker.id] = worker
