"""The simulated workloads of `benchmarks.simulation`, and the loop that a researcher writes by hand for them.

The loop is the baseline: one resident model, no Lightning, no workers, no metrics, samples in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy
from typing_extensions import override

from fedlightning.algorithms import uniform_cohort
from fedlightning.algorithms.blocks import block_size
from fedlightning.data import IID
from fedlightning.data.order import BatchOrder
from fedlightning.local.vectorised.trial import Wish
from fedlightning.strategy import FederatedStrategy
from fedlightning.strategy.roster import numbered_names

SEED = 7
CLASSES = 10
LEARNING_RATE = 0.05


@dataclass(frozen=True)
class Workload:
    """One federated training of one local epoch per visit.

    Args:
        name: As in the table.
        make_net: Builds the untrained network.
        shape: Shape of one sample.
        workers: How many workers there are.
        samples: Samples at each worker.
        rounds: Rounds.
        cohort: Workers per round.
        batch_size: Samples per local step.
        target_sgd: The most that ours may take with plain SGD, as a multiple of the loop by hand.
        target_other: Likewise with any other optimizer.
        target_together: Likewise where the workers take their steps together, with plain SGD.
    """

    name: str
    make_net: Callable[[], nn.Module]
    shape: tuple[int, ...]
    workers: int
    samples: int
    rounds: int
    cohort: int
    batch_size: int
    target_sgd: float
    target_other: float
    target_together: float

    def shortened(self, rounds: int) -> Workload:
        """Return the same with fewer rounds."""
        return replace(self, rounds=min(rounds, self.rounds))

    def dataset(self, device: str = "cpu") -> TensorDataset:
        """Draw the samples of all workers, and labels that a linear map of them can tell."""
        generator = torch.Generator().manual_seed(SEED)
        x = torch.randn(self.workers * self.samples, *self.shape, generator=generator)
        teacher = torch.randn(x[0].numel(), CLASSES, generator=generator)
        return TensorDataset(x.to(device), (x.flatten(1) @ teacher).argmax(1).to(device))

    def net(self) -> nn.Module:
        """Build the network, with the same weights each time."""
        torch.manual_seed(SEED)
        return self.make_net()


def two_layers() -> nn.Module:
    """Build the 2NN of McMahan et al. 2017 (199,210 parameters)."""
    return nn.Sequential(
        nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, CLASSES)
    )


def convolutions() -> nn.Module:
    """Build the CNN of McMahan et al. 2017 (1,663,370 parameters)."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, CLASSES)),
    )


def logistic_regression() -> nn.Module:
    """Build a linear classifier (610 parameters)."""
    return nn.Linear(60, CLASSES)


WORKLOADS = {
    "W1": Workload("W1", two_layers, (784,), 1000, 60, 30, 50, 10, 0.85, 1.05, 0.70),
    "W2": Workload("W2", convolutions, (1, 28, 28), 200, 100, 5, 10, 20, 1.00, 1.03, 0.85),
    "W3": Workload("W3", two_layers, (784,), 10, 2000, 5, 10, 32, 0.92, 1.05, 0.66),
    "W4": Workload("W4", logistic_regression, (60,), 5000, 30, 20, 500, 10, 0.75, 1.25, 0.05),
}

MakeOptimizer = Callable[..., Optimizer]
OPTIMIZERS: dict[str, MakeOptimizer] = {
    "sgd": partial(torch.optim.SGD, lr=LEARNING_RATE),
    "momentum": partial(torch.optim.SGD, lr=LEARNING_RATE, momentum=0.9),
    "adam": partial(torch.optim.Adam, lr=0.001),
}


class Orders:
    """Say which samples each visit of a workload sees, in which order, by the library's public functions.

    Drawn beforehand: the loop by hand pays for no shuffling.

    Args:
        work: The workload.
        dataset: Its samples.

    Attributes:
        rounds: For each round the samples of its visits, in the order in which they are seen.
        cohorts: For each round the numbers of the workers that are visited.
    """

    def __init__(self, work: Workload, dataset: TensorDataset) -> None:
        names = numbered_names(work.workers)
        parts = dict(zip(names, IID().split(dataset, work.workers, SEED).indices, strict=True))
        visits = dict.fromkeys(names, 0)
        order = BatchOrder(work.samples, work.batch_size, shuffle=True, drop_last=False)
        numbers = {name: number for number, name in enumerate(names)}
        self.rounds: list[list[Tensor]] = []
        self.cohorts: list[list[int]] = []
        for round_number in range(work.rounds):
            cohort = uniform_cohort(names, work.cohort, seed=SEED, round=round_number)
            self.cohorts.append([numbers[name] for name in cohort])
            self.rounds.append([])
            for name in cohort:
                positions = order.epoch(visits[name], seed=SEED, worker=name)
                self.rounds[-1].append(torch.from_numpy(parts[name])[positions])
                visits[name] += 1


def by_hand(
    work: Workload,
    net: nn.Module,
    make: MakeOptimizer,
    dataset: TensorDataset,
    orders: Orders,
    *,
    metered: bool = False,
) -> None:
    """Train as a researcher would by hand, in place; with a torchmetric over each round, if wanted."""
    x, y = dataset.tensors
    accuracy = MulticlassAccuracy(CLASSES)
    parameters: list[Tensor] = list(net.parameters())
    optimizer = make(parameters)
    for visits in orders.rounds:
        start = [parameter.detach().clone() for parameter in parameters]
        mean, of_block, size = Mean(), Mean(), block_size(len(visits))
        for position, order in enumerate(visits):
            with torch.no_grad():
                torch._foreach_copy_(parameters, start)
            optimizer.state.clear()
            shard = torch.split(x[order], work.batch_size), torch.split(y[order], work.batch_size)
            for a, b in zip(*shard, strict=True):
                optimizer.zero_grad()
                scores = net(a)
                torch.autograd.backward(F.cross_entropy(scores, b))
                optimizer.step()
                if metered:
                    accuracy.update(scores.detach(), b)
            with torch.no_grad():
                # A running mean by blocks, as ours: another sum rounds otherwise, by 1e-8 after a round, and
                # Adam, whose first steps go by a gradient's sign, makes a loss of it that differs by 1e-4.
                of_block.add(parameters, 1)
                if (position + 1) % size == 0 or position + 1 == len(visits):
                    mean.add(of_block.tensors, of_block.weight)
                    of_block = Mean()
        with torch.no_grad():
            torch._foreach_copy_(parameters, mean.tensors)
        if metered:
            accuracy.compute()
            accuracy.reset()


class Mean:
    """Keep a running mean of networks' parameters."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.weight = 0

    def add(self, tensors: Sequence[Tensor], weight: int) -> None:
        """Take one more list of parameters into the mean."""
        self.weight += weight
        if self.tensors:
            torch._foreach_lerp_(self.tensors, list(tensors), weight / self.weight)
        else:
            self.tensors = [tensor.detach().clone() for tensor in tensors]


class Module(pl.LightningModule):
    """Be an ordinary module, with a logged loss and a torchmetric that counts in validation.

    Counted in each training step, the metric's own 60 to 220 us would hide what is measured: see `Metered`.

    Args:
        net: The network.
        make: Builds the optimizer.
    """

    def __init__(self, net: nn.Module, make: MakeOptimizer) -> None:
        super().__init__()
        self.net = net
        self.accuracy = MulticlassAccuracy(CLASSES)
        self._make = make

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("train/loss", loss)
        return loss

    @override
    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        self.accuracy(self.net(x), y)
        self.log("val/accuracy", self.accuracy)

    @override
    def configure_optimizers(self) -> Optimizer:
        return self._make(self.parameters())


class Metered(Module):
    """Be the same with a torchmetric that counts in each training step, too.

    Args:
        net: The network.
        make: Builds the optimizer.
    """

    def __init__(self, net: nn.Module, make: MakeOptimizer) -> None:
        super().__init__(net, make)
        self.train_accuracy = MulticlassAccuracy(CLASSES)

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        scores = self.net(x)
        loss = F.cross_entropy(scores, y)
        self.train_accuracy.update(scores.detach(), y)
        self.log("train/loss", loss)
        self.log("train/accuracy", self.train_accuracy)
        return loss


def by_strategy(
    work: Workload,
    module: Module,
    dataset: TensorDataset,
    vectorize: Wish = False,
    processes: int | None = None,
    *,
    compiles: bool = False,
) -> None:
    """Train through `Trainer.fit`, in place: start-up, logging and one validation included."""
    trainer = pl.Trainer(
        accelerator=dataset.tensors[0].device.type,
        max_epochs=1,
        strategy=FederatedStrategy(
            workers=work.workers,
            cohort_size=work.cohort,
            rounds_per_epoch=work.rounds,
            local_epochs=1,
            vectorize=vectorize,
            processes=processes,
            compile=compiles,
            seed=SEED,
        ),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    held_out = TensorDataset(*(tensor[:100] for tensor in dataset.tensors))
    trainer.fit(
        module,
        DataLoader(dataset, batch_size=work.batch_size, shuffle=True),
        DataLoader(held_out, batch_size=100),
    )


@torch.no_grad()
def final_loss(net: nn.Module, dataset: TensorDataset) -> float:
    """Return the mean loss over (at most 10,000 of) the samples, in float64."""
    x, y = (tensor[:10_000] for tensor in dataset.tensors)
    losses = [
        F.cross_entropy(net(a), b, reduction="sum")
        for a, b in zip(torch.split(x, 500), torch.split(y, 500), strict=True)
    ]
    return float(torch.stack(losses).double().sum() / len(x))
