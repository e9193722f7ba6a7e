"""The one place that adds methods to torch's own classes, and only when a user asks for it."""

from __future__ import annotations

from copy import deepcopy
from types import ModuleType
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor, nn

from fedlightning.pointers.adjusting import adjust_torch
from fedlightning.pointers.errors import PointerError
from fedlightning.pointers.location import check_place
from fedlightning.pointers.modules import get_module, move_module, send_module
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

    Example:
        >>> import torch
        >>> hook = TorchHook(torch)
        >>> bob = VirtualWorker(hook, id="bob")
        >>> x = torch.tensor([1.0, 2.0]).send(bob)
        >>> (x + x).get()
        tensor([2., 4.])
        >>> hook.workers["bob"] is bob
        True
    """

    def __init__(self, torch: ModuleType | None = None) -> None:
        if torch is not None and getattr(torch, "__name__", None) != "torch":
            raise TypeError(f"torch={torch!r} is not the torch module: call TorchHook(torch)")
        self.local_worker: VirtualWorker = local_worker
        _add_methods()
        adjust_torch()
        self.workers: WeakValueDictionary[str, Worker] = WeakValueDictionary()

    def add_worker(self, worker: Worker) -> None:
        """Know a worker by its name.

        Raises:
            ValueError: The name is the local worker's.
        """
        if worker.id == self.local_worker.id:
            raise ValueError(f"id={worker.id!r} is the local worker's name: choose another")
        self.workers[worker.id] = worker
        self.local_worker.add_worker(worker)
        worker.add_worker(self.local_worker)


def _send_tensor(
    tensor: Tensor, location: Worker, *, tags: tuple[str, ...] = (), description: str = ""
) -> Any:
    """Send a copy of this tensor to a worker, with its tags and description, and return a pointer to it."""
    check_place(location)
    own_tags: tuple[str, ...] = tensor.__dict__.get("tags", ())
    own_description: str = tensor.__dict__.get("description", "")
    words = tuple(dict.fromkeys((*own_tags, *tags)))
    return location.send(tensor, tags=words, description=description or own_description)


def _tag_tensor(tensor: Tensor, *tags: str) -> Tensor:
    """Give this tensor words that `search` finds it by where it is sent, beside those it has."""
    known: tuple[str, ...] = tensor.__dict__.get("tags", ())
    tensor.__dict__["tags"] = tuple(dict.fromkeys((*known, *tags)))
    return tensor


def _describe_tensor(tensor: Tensor, description: str) -> Tensor:
    """Say what this tensor is, for people and for the ledgers of the workers where it is sent."""
    tensor.__dict__["description"] = description
    return tensor


def _copy_tensor(tensor: Tensor) -> Tensor:
    """Return a leaf with the same values, which requires grad if this one does."""
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _get_tensor(tensor: Tensor) -> Tensor:
    """Explain that this tensor is here already; pointers have a `.get()` of their own."""
    raise PointerError("this tensor is here already: .get() is for pointers, and each can be fetched once")


def _add_methods() -> None:
    for owner, name, method in (
        (Tensor, "send", _send_tensor),
        (Tensor, "get", _get_tensor),
        (Tensor, "copy", _copy_tensor),
        (Tensor, "tag", _tag_tensor),
        (Tensor, "describe", _describe_tensor),
        (nn.Module, "send", send_module),
        (nn.Module, "get", get_module),
        (nn.Module, "move", move_module),
        (nn.Module, "copy", deepcopy),
    ):
        setattr(owner, name, method)
