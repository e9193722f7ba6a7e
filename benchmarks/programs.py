"""What workers run for the benchmarks, in a module of its own, so that other processes can import it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedlightning.workers import program


@program(returns="metrics")
def train_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor
) -> Tensor:
    """Take one step of training, with whatever kind of tensors is given."""
    optimizer.zero_grad()
    loss = F.cross_entropy(network(inputs), labels)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotations lack it
    optimizer.step()
    return loss.detach()
