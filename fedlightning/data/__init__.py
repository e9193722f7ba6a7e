"""Data at workers: how it is divided, where it lies, how it is read. Nothing is defined here."""

from fedlightning.data.loader_settings import LoaderSettings
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
from fedlightning.data.shard import Shard

__all__ = [
    "IID",
    "ClassesPerWorker",
    "Dirichlet",
    "Explicit",
    "LabelShares",
    "LoaderSettings",
    "LogNormal",
    "Natural",
    "Partition",
    "Partitioner",
    "PowerLaw",
    "Shard",
    "Shards",
    "TwoShards",
]
