"""Memory for what steps compute on their way, used by one result after another, and by tape after tape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_SMALLEST = 64


@dataclass(frozen=True)
class Lifetime:
    """When a piece of memory is in use.

    Args:
        size: Its bytes.
        device: Where it lies.
        first: The first of the calls that has to do with it.
        last: The last one.
    """

    size: int
    device: torch.device
    first: int
    last: int


class Arena:
    """Pieces of memory that have come into use, by size and device; all go on being used."""

    def __init__(self) -> None:
        self._pieces: dict[tuple[int, torch.device], list[Tensor]] = defaultdict(list)

    def homes(self, lifetimes: Mapping[int, Lifetime]) -> dict[int, Tensor]:
        """Find memory for several things, some of which are over when others begin.

        Whoever asks next is given the same memory: two who have asked must not be at work at once.

        Args:
            lifetimes: By whatever they are known by.

        Returns:
            Memory for each, in bytes, at least of the size asked for.
        """
        free: dict[tuple[int, torch.device], list[Tensor]] = {
            kind: pieces.copy() for kind, pieces in self._pieces.items()
        }
        homes: dict[int, Tensor] = {}
        ending: list[int] = []
        for name in sorted(lifetimes, key=lambda name: lifetimes[name].first):
            own = lifetimes[name]
            over = [other for other in ending if lifetimes[other].last < own.first]
            for other in over:
                ending.remove(other)
                free[_kind_of(lifetimes[other])].append(homes[other])
            homes[name] = self._piece(_kind_of(own), free)
            ending.append(name)
        return homes

    def _piece(
        self, kind: tuple[int, torch.device], free: dict[tuple[int, torch.device], list[Tensor]]
    ) -> Tensor:
        """Take what was given back last, since it may still be in a cache, or else a new piece."""
        if free.setdefault(kind, []):
            return free[kind].pop()
        piece = torch.empty(kind[0], dtype=torch.uint8, device=kind[1])
        self._pieces[kind].append(piece)
        return piece


def _kind_of(own: Lifetime) -> tuple[int, torch.device]:
    """Round sizes up, so that things of about the same size share their memory."""
    return max(_SMALLEST, 1 << (own.size - 1).bit_length()), own.device
