"""A new Lightning Trainer for each visit: how Lightning is used within other systems."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.workloads import OPTIMIZERS, Mean, Module, Orders, Workload


def train(work: Workload, net: nn.Module, dataset: TensorDataset, orders: Orders) -> None:
    """Train in place; see `Train`."""
    module = Module(net, OPTIMIZERS["sgd"])
    parameters: list[Tensor] = list(net.parameters())
    for visits in orders.rounds:
        start = [parameter.detach().clone() for parameter in parameters]
        mean = Mean()
        for order in visits:
            with torch.no_grad():
                torch._foreach_copy_(parameters, start)
            shard = TensorDataset(*(tensor[order] for tensor in dataset.tensors))
            _trainer().fit(module, DataLoader(shard, work.batch_size))
            mean.add([parameter.detach() for parameter in parameters], 1)
        with torch.no_grad():
            torch._foreach_copy_(parameters, mean.tensors)


def _trainer() -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
