"""FedAsync: each update is mixed into the global model as it arrives.

Xie et al. 2019, "Asynchronous Federated Optimization", Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.asynchronous.base import Asynchronous
from fedlightning.algorithms.asynchronous.staleness import Constant, Staleness, check_staleness
from fedlightning.data.checks import check_real


@dataclass(frozen=True)
class FedAsync(Asynchronous):
    """Mix what a worker has trained into the global model as soon as it arrives.

    With ``alpha_t = alpha * s(staleness)``, the new model is ``(1 - alpha_t) * x + alpha_t * x_new``. The
    staleness of a worker is the number of the server's updates since it has begun, 0 if there were none,
    where ``s`` is 1. The paper's proximal term is that of `FedProx`, which goes with it. Buffers, such as
    BatchNorm's statistics, are mixed in the same way.

    At ``alpha=1`` without scaling, the model is what arrived last; with one worker under way at a time, that
    is sequential training.

    Args:
        alpha: How much of an arrival is taken, above 0 and at most 1.
        staleness: How much less of a late one: `Constant`, `Polynomial` or `Hinge`.

    Raises:
        TypeError: The function of staleness is none.
        ValueError: ``alpha`` is out of range.

    Example:
        >>> import torch
        >>> from fedlightning.algorithms import Polynomial
        >>> half = FedAsync(alpha=1.0, staleness=Polynomial(a=1.0))
        >>> here, there = [torch.tensor([4.0])], [torch.tensor([8.0])]
        >>> half.arrived(now=here, start=[torch.tensor([0.0])], end=there, staleness=1)
        [tensor([6.])]
    """

    alpha: float = 0.6
    staleness: Staleness = field(default_factory=Constant)
    buffer: int = field(default=1, init=False, repr=False)

    mixes_buffers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_real("alpha", self.alpha, zero_allowed=False, remedy="Give a share such as 0.6.")
        if self.alpha > 1:
            raise ValueError(f"alpha={self.alpha} must be at most 1. Give 1 to take arrivals as they are.")
        check_staleness(self.staleness)

    @override
    def arrived(
        self, now: Sequence[Tensor], start: Sequence[Tensor], end: Sequence[Tensor], staleness: int
    ) -> Sequence[Tensor]:
        alpha = self.alpha * self.staleness(staleness)
        return (
            end if alpha == 1 else [torch.lerp(here, new, alpha) for here, new in zip(now, end, strict=True)]
        )
