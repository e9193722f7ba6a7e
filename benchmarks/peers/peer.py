"""What the benchmark asks of another system. The systems have files of their own, imported when measured."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Protocol, cast

from torch import nn
from torch.utils.data import TensorDataset

from benchmarks.measuring import CPU, Clock
from benchmarks.workloads import Orders, Workload


class Train(Protocol):
    """Train a network in place, on the samples and in the order that are given."""

    def __call__(self, work: Workload, net: nn.Module, dataset: TensorDataset, orders: Orders) -> None:
        """Train as the system's users would, with `LEARNING_RATE` and plain SGD.

        Args:
            work: How many workers there are, and how they train.
            net: The network.
            dataset: Everybody's samples.
            orders: Who takes part in a round, and which samples each visit sees in which order.
        """


@dataclass(frozen=True)
class Peer:
    """Tell another system.

    Args:
        way: How the workload is trained, as in the table.
        module: The module in this folder that has its `train`.
        package: What has to be installed; None where nothing has.
        clock: What counts as time, of the system and of the loop beside it.
    """

    way: str
    module: str
    package: str | None = None
    clock: Clock = CPU

    @property
    def version(self) -> str | None:
        """That of the package which is installed; empty where none is needed, None where it is missing."""
        if self.package is None:
            return ""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None

    def load(self) -> Train:
        """Import the system."""
        return cast(Train, import_module(f"benchmarks.peers.{self.module}").train)
