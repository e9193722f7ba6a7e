"""The train loader that Lightning's loop iterates: its batches are plans of rounds, not data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fedlightning.algorithms import Plan


class PlanLoader:
    """Yield the plans of one epoch's rounds; each is drawn up when it is asked for.

    Keeps ``dataset``, ``sampler`` and ``batch_size`` of the loader that it stands in for, where callbacks
    look for them.

    Args:
        source: The user's loader.
        rounds: Returns the number of rounds in one epoch; asked when all loaders of a fit are known.
        next_plan: Draws up the plan of the coming round.
        on_epoch: Called when an epoch's iterator is opened; sets ``rounds_done``.

    Attributes:
        rounds_done: Rounds completed since the epoch began.
        number: Number of the loader that it stands in for, in a collection.
    """

    number = 0

    def __init__(
        self,
        source: Any,
        rounds: Callable[[], int],
        next_plan: Callable[[], Plan],
        on_epoch: Callable[[], None],
    ) -> None:
        self.dataset = source.dataset
        self.sampler = getattr(source, "sampler", None)
        self.batch_size = getattr(source, "batch_size", None)
        self.rounds_done = 0
        self._rounds = rounds
        self._next_plan = next_plan
        self._on_epoch = on_epoch

    def __len__(self) -> int:
        return self._rounds()

    def __iter__(self) -> Iterator[Plan]:
        # Not a generator: the epoch begins when the Trainer opens the iterator, not at its first batch.
        self._on_epoch()
        return iter(self._plans())

    def _plans(self) -> Iterator[Plan]:
        for _ in range(len(self) - self.rounds_done):
            yield self._next_plan()

    def state_dict(self) -> dict[str, Any]:
        """Return how many rounds of the epoch are done. Lightning takes us for resumable by this."""
        return {"rounds_done": self.rounds_done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing: the strategy restores the cursor, since Lightning calls this in mid-epoch only."""


class CompanionLoader(PlanLoader):
    """Stand in for a further loader of a collection: it yields the plans that the first one has drawn up.

    Args:
        source: The user's loader.
        first: What stands in for the first loader.
        current: Returns the plan that was drawn up last.
        number: Number of the loader in the collection.
    """

    def __init__(self, source: Any, first: PlanLoader, current: Callable[[], Plan], number: int) -> None:
        super().__init__(source, first.__len__, current, lambda: None)
        self.number = number
