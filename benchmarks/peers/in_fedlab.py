"""The workloads in FedLab: its FedAvg in one process, a DataLoader per visit."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from fedlab.contrib.algorithm.fedavg import FedAvgSerialClientTrainer, FedAvgServerHandler
from fedlab.contrib.dataset.basic_dataset import FedDataset
from fedlab.core.standalone import StandalonePipeline
from fedlab.utils import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from benchmarks.workloads import LEARNING_RATE, Orders, Workload

# Its import has all logging shown.
logging.getLogger().setLevel(logging.WARNING)


class _Shards(FedDataset):
    """Give each visit its samples, in the benchmark's order."""

    def __init__(self, dataset: TensorDataset, orders: Orders) -> None:
        self._dataset = dataset
        self._visits = (order for visits in orders.rounds for order in visits)

    @override
    def get_dataloader(self, id: int, batch_size: int) -> DataLoader[tuple[Tensor, ...]]:
        order = next(self._visits)
        return DataLoader(TensorDataset(*(tensor[order] for tensor in self._dataset.tensors)), batch_size)


class _Server(FedAvgServerHandler):
    """Draw the benchmark's cohorts."""

    cohorts: Iterator[list[int]]

    @override
    def sample_clients(self) -> list[int]:
        return next(self.cohorts)


class _Pipeline(StandalonePipeline):
    """Leave out evaluation, which it only prints a reminder of."""

    @override
    def evaluate(self) -> None:
        pass


def train(work: Workload, net: nn.Module, dataset: TensorDataset, orders: Orders) -> None:
    """Train in place; see `Train`."""
    log = Logger("fedlab")
    clients = FedAvgSerialClientTrainer(net, work.workers, logger=log)
    clients.setup_dataset(_Shards(dataset, orders))
    clients.setup_optim(epochs=1, batch_size=work.batch_size, lr=LEARNING_RATE)
    server = _Server(net, work.rounds, work.cohort / work.workers, logger=log)
    server.cohorts = iter(orders.cohorts)
    _Pipeline(server, clients).main()
    with torch.no_grad():
        torch._foreach_copy_(list(net.parameters()), list(server.model.parameters()))
