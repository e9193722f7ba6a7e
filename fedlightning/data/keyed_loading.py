"""Batches of any map-style dataset through an ordinary DataLoader, told batch by batch what to read.

Each batch carries its own seed to the loader process that reads it, so that random augmentation there is a
function of the batch alone: not of the process, nor of what was read before.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from fedlightning.data.loader_settings import LoaderSettings
from fedlightning.data.map_style import MapStyle


class Ticket(NamedTuple):
    """Order one batch.

    Args:
        positions: Which samples.
        seed: Of random augmentation in a loader process, in ``[0, 2**64)``.
    """

    positions: list[int]
    seed: int


class KeyedLoader:
    """Read batches as tickets say, with the user's collation, loader processes and pinning.

    In a loader process the seeds of `random`, NumPy and torch are set for each batch. Without loader
    processes augmentation draws from the generators of this process, as in any DataLoader; nothing else here
    touches them.

    Args:
        dataset: A map-style dataset.
        settings: How it is read.
    """

    def __init__(self, dataset: MapStyle, settings: LoaderSettings) -> None:
        self._visit = _Visit()
        # A DataLoader draws a seed whenever it is iterated; without this, from the global stream.
        self._generator = torch.Generator()
        self._loader: DataLoader[Any] = DataLoader(
            _TicketReader(dataset),
            batch_sampler=self._visit,
            generator=self._generator,
            **settings.loading_options(),
        )

    def read(self, tickets: Iterable[Ticket]) -> Iterator[Any]:
        """Yield the batch of each ticket."""
        self._visit.tickets = list(tickets)
        self._generator.manual_seed(self._visit.tickets[0].seed if self._visit.tickets else 0)
        yield from self._loader


class _Visit:
    """The batch sampler of a loader that is kept: what to read the next time it is iterated."""

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tickets)

    def __len__(self) -> int:
        return len(self.tickets)


class _TicketReader(Dataset[Any]):
    def __init__(self, dataset: MapStyle) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, ticket: Ticket) -> list[Any]:
        # torch's DataLoader hands whatever the batch sampler yields to this method, where there is one.
        if get_worker_info() is not None:
            _seed_all(ticket.seed)
        if read_many := getattr(self.dataset, "__getitems__", None):
            samples: list[Any] = read_many(ticket.positions)
            return samples
        return [self.dataset[position] for position in ticket.positions]


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # all that NumPy's global generator takes
    torch.manual_seed(seed)
