"""What the callbacks ask of a Trainer's strategy; how it is answered is the strategy's matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import lightning as L


class RoundInProgress(Protocol):
    """The round that is trained at the moment."""

    @property
    def round(self) -> int:
        """Number of the round, counted from 0."""

    @property
    def workers(self) -> Sequence[str]:
        """Names of the workers that train in it."""


class WorkerReport(Protocol):
    """What one worker holds, how well the global module does there, and what crossed its door."""

    @property
    def worker(self) -> str:
        """Name of the worker."""

    @property
    def samples(self) -> int:
        """Number of its training samples."""

    @property
    def label_counts(self) -> Mapping[int, int]:
        """Samples per label; empty where the data has no labels."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """What the module's ``validation_step`` logs on the worker's own samples."""

    @property
    def sent_bytes(self) -> int:
        """Bytes that have left the worker."""

    @property
    def received_bytes(self) -> int:
        """Bytes that have come to the worker."""


@runtime_checkable
class Federation(Protocol):
    """A strategy that trains at workers, as `fedlightning.FederatedStrategy` does."""

    @property
    def current_plan(self) -> RoundInProgress | None:
        """The round that is trained at the moment, or None before the first."""

    def federation_summary(self) -> Sequence[WorkerReport]:
        """Return one report per worker."""


def federation_of(trainer: L.Trainer) -> Federation | None:
    """Return the Trainer's strategy if it trains at workers, else None.

    The callbacks do nothing without a federation, so that one set of them serves an experiment and the
    central training it is compared with.
    """
    strategy: object = trainer.strategy
    return strategy if isinstance(strategy, Federation) else None
