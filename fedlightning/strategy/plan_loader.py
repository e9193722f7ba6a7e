"""The train loader that Lightning's loop iterates: its batches are plans of rounds, not data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fedlightning.algorithms import Plan


class PlanLoader:
    """Yield the plans of one epoch's rounds; each is drawn up when it is asked for.

    Keeps ``dataset``, ``sampler`` and ``batch_size`` of the loader that it stands in for, where callbacks
    look for them.

    Args:
        source: The user's loader.
        rounds: Rounds in one epoch.
        next_plan: Draws up the plan of the coming round.
        on_epoch: Called when an epoch's iterator is opened.
    """

    def __init__(
        self, source: Any, rounds: int, next_plan: Callable[[], Plan], on_epoch: Callable[[], None]
    ) -> None:
        self.dataset = source.dataset
        self.sampler = getattr(source, "sampler", None)
        self.batch_size = getattr(source, "batch_size", None)
        self._rounds = rounds
        self._next_plan = next_plan
        self._on_epoch = on_epoch

    def __len__(self) -> int:
        return self._rounds

    def __iter__(self) -> Iterator[Plan]:
        # Not a generator: the epoch begins when the Trainer opens the iterator, not at its first batch.
        self._on_epoch()
        return (self._next_plan() for _ in range(self._rounds))
