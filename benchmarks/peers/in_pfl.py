"""The workloads in pfl (Apple's pfl-research): one resident model, tensors in memory, no post-processing."""

from __future__ import annotations

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from typing_extensions import override

from benchmarks.workloads import LEARNING_RATE, Orders, Workload


class _Module(nn.Module):
    """Add what pfl asks of a module."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.net(x), y)

    def metrics(self, x: Tensor, y: Tensor) -> dict[str, float]:
        return {}


class _Model(PyTorchModel):
    """Leave out evaluation: pfl evaluates the first round's workers whatever is asked."""

    @override
    def evaluate(self, *_: object) -> Metrics:
        return Metrics()


def train(work: Workload, net: nn.Module, dataset: TensorDataset, orders: Orders) -> None:
    """Train in place; see `Train`."""
    visits = [order for visits in orders.rounds for order in visits]

    def user(visit: int) -> PyTorchTensorDataset:
        return PyTorchTensorDataset(tuple(tensor[visits[visit]] for tensor in dataset.tensors))

    data = FederatedDataset(user, iter(range(len(visits))).__next__)
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=work.rounds,
            evaluation_frequency=work.rounds,
            train_cohort_size=work.cohort,
            val_cohort_size=None,
        ),
        SimulatedBackend(training_data=data, val_data=data),
        _Model(
            _Module(net),
            local_optimizer_create=torch.optim.SGD,
            central_optimizer=torch.optim.SGD(net.parameters(), lr=1.0),
        ),
        NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=LEARNING_RATE, local_batch_size=work.batch_size
        ),
        send_metrics_to_platform=False,
    )
