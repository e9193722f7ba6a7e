"""FLTrust: the server trains on a small clean data set itself, and trusts whoever goes its way.

Cao et al. 2021, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", Algorithm 2. Rules
that need no data are in ``robust``; how the server trains is for the strategy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from fedlightning.algorithms.robust import AggregationRule
from fedlightning.workers.remote import record


@record
@dataclass(frozen=True)
class FLTrust(AggregationRule):
    """Trust a worker as far as its update points where the server's own does.

    The server's update comes from root data, ``FederatedStrategy(root_data=...)``, by the same local work as
    at the workers. A worker's trust score is the cosine of the angle between the two, or 0 where that is
    negative; its update is scaled to the length of the server's; and the mean is weighted by trust. Weights
    are not used. Where nobody is trusted, the model stays as it is, of which the paper says nothing.

    The paper asks for some 100 clean samples, with as many of each class as the workers have together. A
    server's rate other than 1 is a server optimizer.

    Example:
        >>> start, own = torch.zeros(2), torch.tensor([[2.0, 0.0]])
        >>> workers = torch.tensor([[8.0, 0.0], [-8.0, 0.0], [0.0, 3.0]])
        >>> FLTrust().combine(torch.cat([own, workers]), torch.ones(4), start)
        tensor([2., 0.])
    """

    needs_root: ClassVar[bool] = True

    @override
    def combine(self, updates: Tensor, weights: Tensor, start: Tensor) -> Tensor:
        root, *_ = steps = updates - start
        others = steps[1:]
        scores = trust_scores(others, root)
        if not scores.any():
            return start.clone()
        scaled = nn.functional.normalize(others, dim=1) * root.norm()
        step: Tensor = (scaled * (scores / scores.sum())[:, None]).sum(0)
        return start + step


def trust_scores(steps: Tensor, root: Tensor) -> Tensor:
    """Return how far each step is trusted: the cosine of its angle to the root's, cut off below 0.

    Args:
        steps: Shape ``(workers, entries)``.
        root: The server's own, shape ``(entries,)``.

    Returns:
        Shape ``(workers,)``, each between 0 and 1; 0 for a step of no length.

    Example:
        >>> trust_scores(torch.tensor([[3.0, 4.0], [-1.0, 0.0]]), torch.tensor([1.0, 0.0]))
        tensor([0.6000, 0.0000])
    """
    return torch.cosine_similarity(steps, root[None], dim=1).clamp_min(0)
