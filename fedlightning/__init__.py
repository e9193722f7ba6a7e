"""Federated learning for PyTorch Lightning: the public names, resolved on first use.

Nothing is defined here. Names load lazily (PEP 562), so that ``fedlightning-train --help`` does not
import torch. Add a name in two places: ``_NAMES`` for Python, the ``TYPE_CHECKING`` block for type checkers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedlightning._register import register_when_imported
from fedlightning._version import __version__ as __version__

if TYPE_CHECKING:
    from fedlightning import algorithms as algorithms
    from fedlightning import callbacks as callbacks
    from fedlightning import data as data
    from fedlightning import local as local
    from fedlightning import pointers as pointers
    from fedlightning import strategy as strategy
    from fedlightning import workers as workers
    from fedlightning.pointers import PointerTensor as PointerTensor
    from fedlightning.strategy import FederatedStrategy as FederatedStrategy
    from fedlightning.strategy import Tolerance as Tolerance
    from fedlightning.strategy import replay as replay
    from fedlightning.workers import ProcessWorker as ProcessWorker
    from fedlightning.workers import TorchHook as TorchHook
    from fedlightning.workers import VirtualWorker as VirtualWorker
    from fedlightning.workers import Worker as Worker
    from fedlightning.workers import local_worker as local_worker

_NAMES = {
    "FederatedStrategy": "fedlightning.strategy",
    "PointerTensor": "fedlightning.pointers",
    "ProcessWorker": "fedlightning.workers",
    "Tolerance": "fedlightning.strategy",
    "TorchHook": "fedlightning.workers",
    "VirtualWorker": "fedlightning.workers",
    "Worker": "fedlightning.workers",
    "local_worker": "fedlightning.workers",
    "replay": "fedlightning.strategy",
}
_SUBPACKAGES = ("algorithms", "callbacks", "data", "local", "pointers", "strategy", "workers")


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    if name in _SUBPACKAGES:
        return import_module(f"fedlightning.{name}")
    raise AttributeError(f"module 'fedlightning' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_SUBPACKAGES})


register_when_imported()
