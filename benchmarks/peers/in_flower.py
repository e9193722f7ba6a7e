"""The workloads in Flower's simulation: virtual nodes in an actor of Ray, one at a time, with one thread.

Flower's server runs in this process, the nodes in Ray's. What counts is what all of them compute.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from functools import lru_cache

# Nothing is reported to anybody. By a switch that is meant for other systems, Ray listens on loopback only.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy.strategy_utils import sample_nodes
from flwr.simulation import run_simulation
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from typing_extensions import override

from benchmarks.measuring import family_seconds
from benchmarks.peers.peer import Took
from benchmarks.workloads import LEARNING_RATE, Orders, Workload

ONE_AT_A_TIME = {
    "client_resources": {"num_cpus": 1},
    "init_args": {"address": "local", "num_cpus": 1, "log_to_driver": False, "logging_level": logging.ERROR},
}
GETS_READY = 1


class _InOrder(FedAvg):
    """Have nodes make the visits of the benchmark, which are told with the model.

    In a round before them one node gets ready: it imports what it needs, draws samples, trains for nothing.
    """

    def __init__(self, work: Workload) -> None:
        super().__init__(fraction_evaluate=0.0)
        self._work = work
        self.ready = 0.0

    @override
    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        if server_round == GETS_READY + 1:
            self.ready = family_seconds()
        visits = 1 if server_round == GETS_READY else self._work.cohort
        nodes, _ = sample_nodes(grid, self._work.workers, visits)
        for visit, node in enumerate(nodes):
            told = ConfigRecord({"server-round": server_round, "visit": visit})
            yield Message(
                RecordDict({"arrays": arrays, "config": told}), dst_node_id=node, message_type="train"
            )


def train(work: Workload, net: nn.Module, dataset: TensorDataset, orders: Orders) -> Took:
    """Train in place; see `Train`."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    started = family_seconds()
    took = []
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy = _InOrder(work)
        arrays = ArrayRecord(net.state_dict())
        result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=GETS_READY + work.rounds)
        took.append(Took(rounds=family_seconds() - strategy.ready, once=strategy.ready - started))
        net.load_state_dict(result.arrays.to_torch_state_dict())

    run_simulation(server, _client(work), work.workers, backend_config=ONE_AT_A_TIME)
    return took[0]


def _client(work: Workload) -> ClientApp:
    client = ClientApp()

    @client.train()
    def visit(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        dataset, orders = _data(work)
        arrays, config = message.content["arrays"], message.content["config"]
        number = config["server-round"] - GETS_READY - 1
        order = orders.rounds[max(number, 0)][config["visit"]]
        net = work.make_net()
        net.load_state_dict(arrays.to_torch_state_dict())
        x, y = (torch.split(tensor[order], work.batch_size) for tensor in dataset.tensors)
        loss = _local_epoch(net, list(zip(x, y, strict=True)))
        if number >= 0:
            arrays = ArrayRecord(net.state_dict())
        metrics = MetricRecord({"num-examples": len(order), "loss": loss})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return client


@lru_cache(1)
def _data(work: Workload) -> tuple[TensorDataset, Orders]:
    dataset = work.dataset()
    return dataset, Orders(work, dataset)


def _local_epoch(net: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)
    total = 0.0
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        torch.autograd.backward(loss)
        optimizer.step()
        total += loss.item()
    return total / len(batches)
