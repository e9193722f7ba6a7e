"""A fit of two epochs of two rounds, by a federation or without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import pytest

from fedlightning.data import Explicit
from fedlightning.strategy import FederatedStrategy
from fedlightning.workers import VirtualWorker
from tests.strategy.toys import fit as fit_toy
from tests.strategy.toys import loader

Fit = Callable[..., L.Trainer]


def bob_and_alice(**settings: Any) -> FederatedStrategy:
    """Return a federation of two: bob has six samples of the labels 0 and 1, alice four of label 1.

    With ``toys.loader(10)``, whose labels are 0, 1, 2, 0, 1, 2, ...
    """
    parts = Explicit({"bob": [0, 1, 3, 4, 6, 9], "alice": [2, 5, 7, 8]})
    workers = [VirtualWorker(id="bob"), VirtualWorker(id="alice")]
    return FederatedStrategy(workers, parts, **{"rounds_per_epoch": 2, "seed": 0, **settings})


@pytest.fixture
def fit() -> Fit:
    """Return a function that fits two epochs with callbacks."""

    def run(*callbacks: L.Callback, strategy: Any = None, **settings: Any) -> L.Trainer:
        strategy = bob_and_alice() if strategy is None else strategy
        return fit_toy(strategy, callbacks=list(callbacks), train=loader(10), **settings)[1]

    return run
