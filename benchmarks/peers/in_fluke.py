"""The workloads in fluke: its FedAvg, with its own quick loader of tensors in memory."""

from __future__ import annotations

from collections.abc import Iterator

from fluke import FlukeENV
from fluke.algorithms import CentralizedFL
from fluke.client import Client
from fluke.config import OptimizerConfigurator
from fluke.data import FastDataLoader
from fluke.server import Server
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from typing_extensions import override

from benchmarks.workloads import CLASSES, LEARNING_RATE, Orders, Workload


class _Shard(FastDataLoader):
    """Be shuffled at each visit, as with ``shuffle=True``, but in the benchmark's order."""

    def __init__(self, work: Workload, dataset: TensorDataset, visits: list[Tensor]) -> None:
        # Of the length of a shard; a visit brings its own samples.
        some = [tensor[: work.samples] for tensor in dataset.tensors]
        super().__init__(*some, num_labels=CLASSES, batch_size=work.batch_size, skip_singleton=False)
        self._dataset = dataset
        self._visits = iter(visits)

    @override
    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        order = next(self._visits)
        self.tensors = [tensor[order] for tensor in self._dataset.tensors]
        iterator: Iterator[tuple[Tensor, ...]] = super().__iter__()
        return iterator


class _Server(Server):
    """Draw the benchmark's cohorts."""

    cohorts: Iterator[list[int]]

    @override
    def get_eligible_clients(self, eligible_perc: float) -> list[Client]:
        return [self.clients[number] for number in next(self.cohorts)]


def train(work: Workload, net: nn.Module, dataset: TensorDataset, orders: Orders) -> None:
    """Train in place; see `Train`."""
    FlukeENV().set_eval_cfg(server=False)
    visits: list[list[Tensor]] = [[] for _ in range(work.workers)]
    for cohort, of_round in zip(orders.cohorts, orders.rounds, strict=True):
        for number, order in zip(cohort, of_round, strict=True):
            visits[number].append(order)
    optimizer = OptimizerConfigurator({"name": "SGD", "lr": LEARNING_RATE})
    clients = [
        Client(
            index=number,
            train_set=_Shard(work, dataset, of_worker),
            test_set=None,
            optimizer_cfg=optimizer,
            loss_fn=nn.CrossEntropyLoss(),
            local_epochs=1,
        )
        for number, of_worker in enumerate(visits)
    ]
    server = _Server(model=net, test_set=None, clients=clients)
    server.cohorts = iter(orders.cohorts)
    federation = CentralizedFL(work.workers, None, {}, clients=clients, server=server)
    federation.run(work.rounds, work.cohort / work.workers)
