"""The losses of several visits, step by step, out of which the mean of each is made at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedlightning.local.vectorised.chunks import Numbers


@dataclass
class _Alike:
    """Visits with as many losses of the same type."""

    visits: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


class VisitLosses:
    """Collect the losses of visits; the mean of each is what `VisitSteps.loss` would be, to the bit."""

    def __init__(self) -> None:
        self._alike: dict[tuple[torch.dtype, int], _Alike] = {}

    def add(self, visit: int, losses: Sequence[float], dtype: torch.dtype) -> None:
        """Take the losses of a visit.

        Args:
            visit: Its position.
            losses: Those of its steps, as far as they were not skipped; at least one.
            dtype: In which they were computed.
        """
        key = dtype, len(losses)
        alike = self._alike.get(key)
        if alike is None:
            alike = self._alike[key] = _Alike()
        alike.visits.append(visit)
        alike.losses += losses

    def are_of(self, visits: Numbers) -> npt.NDArray[np.bool_]:
        """Tell which of some visits have any."""
        with_losses = [visit for alike in self._alike.values() for visit in alike.visits]
        return np.isin(visits, with_losses)

    def means(self, visits: Numbers) -> Tensor:
        """Return the mean of each visit, shape ``(visits,)``; not a number where there are no losses.

        Args:
            visits: Their positions, in order.
        """
        dtypes = [dtype for dtype, _ in self._alike]
        dtype = dtypes[0] if dtypes else torch.get_default_dtype()
        for other in dtypes[1:]:
            dtype = torch.promote_types(dtype, other)
        means = torch.full((len(visits),), torch.nan, dtype=dtype)
        places = torch.from_numpy(visits)
        for (own, count), alike in self._alike.items():
            found = torch.searchsorted(places, torch.tensor(alike.visits))
            means[found] = mean_of(alike.losses, own, count).to(dtype)
        return means


def mean_of(losses: Sequence[float], dtype: torch.dtype, count: int) -> Tensor:
    """Return the means of some losses at a time.

    Args:
        losses: Of one visit after the other.
        dtype: In which they were computed.
        count: How many each visit has.

    Returns:
        Shape ``(visits,)``.
    """
    return torch.tensor(losses, dtype=dtype).view(-1, count).mean(1)
