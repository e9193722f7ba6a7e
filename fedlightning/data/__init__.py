"""Data at workers: how it is divided, where it lies, how it is read. Nothing is defined here."""

from fedlightning.data.partition import (
    IID,
    ClassesPerWorker,
    Dirichlet,
    Explicit,
    LabelShares,
    LogNormal,
    Natural,
    Partition,
    Partitioner,
    PowerLaw,
    Shards,
    TwoShards,
)

__all__ = [
    "IID",
    "ClassesPerWorker",
    "Dirichlet",
    "Explicit",
    "LabelShares",
    "LogNormal",
    "Natural",
    "Partition",
    "Partitioner",
    "PowerLaw",
    "Shards",
    "TwoShards",
]
