"""What the callbacks ask of a Trainer: its federation, if it has one, and how the workers are doing."""

from __future__ import annotations

from itertools import chain
from typing import TypeAlias
from weakref import WeakKeyDictionary

import lightning as L

from fedlightning.strategy import FederatedStrategy, WorkerSummary

_State: TypeAlias = tuple[tuple[int, int], ...]


def federation_of(trainer: L.Trainer) -> FederatedStrategy | None:
    """Return the Trainer's strategy if it trains at workers, else None.

    The callbacks do nothing without a federation, so that one set of them serves an experiment and the
    central training it is compared with.
    """
    strategy: object = trainer.strategy
    return strategy if isinstance(strategy, FederatedStrategy) else None


def evaluated_workers(federation: FederatedStrategy, module: L.LightningModule) -> list[WorkerSummary]:
    """Evaluate the global module at every worker, once for all callbacks that ask.

    Args:
        federation: The strategy.
        module: The global module; it is evaluated anew when any of its tensors has changed.
    """
    state = _state_of(module)
    known = _evaluated.get(federation)
    if known is None or known[0] != state:
        known = _evaluated[federation] = (state, federation.federation_summary())
    return known[1]


_evaluated: WeakKeyDictionary[FederatedStrategy, tuple[_State, list[WorkerSummary]]] = WeakKeyDictionary()


def _state_of(module: L.LightningModule) -> _State:
    tensors = chain(module.parameters(), module.buffers())
    return tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
