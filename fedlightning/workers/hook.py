"""The one place that adds methods to torch's own classes, and only when a user asks for it."""

from __future__ import annotations

from types import ModuleType
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor, nn

from fedlightning.pointers.custom_functions import guard_custom_functions
from fedlightning.pointers.errors import PointerError
from fedlightning.pointers.modules import get_module, send_module
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
        _add_methods()
        guard_custom_functions()
        self.workers: WeakValueDictionary[str, Worker] = WeakValueDictionary()

    def add_worker(self, worker: Worker) -> None:
        """Know a worker by its name.

        Raises:
            ValueError: The name is the local worker's.
        """
        if worker.id == self.local_worker.id:
            raise ValueError(f"id={worker.id!r} is the local worker's name: choose another")
        self.workers[worker.id] = worker


def _send_tensor(
    tensor: Tensor, location: Worker, *, tags: tuple[str, ...] = (), description: str = ""
) -> Any:
    """Send a copy of this tensor to a worker and return a pointer to it."""
    return location.send(tensor, tags=tags, description=description)


def _get_tensor(tensor: Tensor) -> Tensor:
    """Explain that this tensor is here already; pointers have a `.get()` of their own."""
    raise PointerError("this tensor is here already: .get() is for pointers, and each can be fetched once")


def _add_methods() -> None:
    for owner, name, method in (
        (Tensor, "send", _send_tensor),
        (Tensor, "get", _get_tensor),
        (nn.Module, "send", send_module),
        (nn.Module, "get", get_module),
    ):
        setattr(owner, name, method)
