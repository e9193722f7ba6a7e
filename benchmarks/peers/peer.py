"""What the benchmark asks of another system. The systems have files of their own, imported when measured."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Protocol, cast

from torch import nn
from torch.utils.data import TensorDataset

from benchmarks.workloads import Orders, Workload


@dataclass(frozen=True)
class Took:
    """Say how long a training took, in seconds of the processor.

    Args:
        rounds: Its rounds.
        once: What came before them, in a system that first starts processes; None where `rounds` is all.
    """

    rounds: float
    once: float | None = None


class Train(Protocol):
    """Train a network in place, on the samples and in the order that are given."""

    def __call__(self, work: Workload, net: nn.Module, dataset: TensorDataset, orders: Orders) -> Took | None:
        """Train as the system's users would, with `LEARNING_RATE` and plain SGD.

        Args:
            work: How many workers there are, and how they train.
            net: The network.
            dataset: Everybody's samples.
            orders: Who takes part in a round, and which samples each visit sees in which order.

        Returns:
            What all processes computed, where the system has several, the start of which is told apart; None
            where this process does everything, whose seconds the caller counts.
        """


@dataclass(frozen=True)
class Peer:
    """Tell another system.

    Args:
        way: How the workload is trained, as in the table.
        module: The module in this folder that has its `train`.
        package: What has to be installed; None where nothing has.
        most_workers: The most with which it is measured, all of them in each round; None for any number, and
            for cohorts.
    """

    way: str
    module: str
    package: str | None = None
    most_workers: int | None = None

    @property
    def version(self) -> str | None:
        """That of the package which is installed; empty where none is needed, None where it is missing."""
        if self.package is None:
            return ""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None

    def takes(self, work: Workload) -> bool:
        """Whether it can be measured on a workload."""
        return self.most_workers is None or work.cohort == work.workers <= self.most_workers

    def load(self) -> Train:
        """Import the system."""
        return cast(Train, import_module(f"benchmarks.peers.{self.module}").train)
