"""FedBuff: the server updates the global model whenever its buffer of updates is full.

Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation", Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.asynchronous.base import Asynchronous
from fedlightning.algorithms.asynchronous.staleness import Polynomial, Staleness, check_staleness
from fedlightning.data.checks import check_count


@dataclass(frozen=True)
class FedBuff(Asynchronous):
    """Average the updates of the first ``buffer`` workers to arrive, while others are under way.

    Each update, the way from where its worker has begun to where it ended, is scaled by
    ``1 / sqrt(1 + staleness)``. The concurrency is the strategy's ``cohort_size``, the server's learning rate
    that of its ``server_optimizer`` (``partial(torch.optim.SGD, lr=...)``). The paper weighs all updates
    alike: ``FedAvg(weighting="uniform")``. A buffer of the whole cohort, where all take as long, is the round
    of the algorithm, bit for bit. Buffers of the module, such as BatchNorm's statistics, are averaged over
    the arrivals.

    Args:
        buffer: Arrivals after which the server steps, at most the concurrency; 10 in the paper.
        staleness: How an update is scaled that comes late.

    Raises:
        TypeError: The function of staleness is none.
        ValueError: The buffer is smaller than 1.

    Example:
        >>> import torch
        >>> now, start, end = ([torch.tensor([value])] for value in (10.0, 4.0, 8.0))
        >>> FedBuff(buffer=2).arrived(now, start, end, staleness=3)
        [tensor([12.])]
    """

    buffer: int = 10
    staleness: Staleness = field(default_factory=Polynomial)

    def __post_init__(self) -> None:
        check_count("buffer", self.buffer)
        check_staleness(self.staleness)

    @override
    def arrived(
        self, now: Sequence[Tensor], start: Sequence[Tensor], end: Sequence[Tensor], staleness: int
    ) -> Sequence[Tensor]:
        scale = self.staleness(staleness)
        if staleness == 0 and scale == 1:
            return end  # to the bit
        ways = zip(now, start, end, strict=True)
        return [here + scale * (new - old) for here, old, new in ways]
