"""Data at workers: how it is divided, where it lies, how it is read. Nothing is defined here."""

from fedlightning.data.federated_dataset import FederatedDataset
from fedlightning.data.federated_loader import FederatedDataLoader
from fedlightning.data.loader_settings import LoaderSettings
from fedlightning.data.map_style import MapStyle
from fedlightning.data.partition import (
    IID,
    ClassesPerWorker,
    Dirichlet,
    Explicit,
    FeatureNoise,
    FeatureRotation,
    FeatureSkew,
    LabelShares,
    LogNormal,
    Natural,
    Partition,
    Partitioner,
    PowerLaw,
    Shards,
    TwoShards,
)
from fedlightning.data.placement import Placement
from fedlightning.data.shard import Shard

__all__ = [
    "IID",
    "ClassesPerWorker",
    "Dirichlet",
    "Explicit",
    "FeatureNoise",
    "FeatureRotation",
    "FeatureSkew",
    "FederatedDataLoader",
    "FederatedDataset",
    "LabelShares",
    "LoaderSettings",
    "LogNormal",
    "MapStyle",
    "Natural",
    "Partition",
    "Partitioner",
    "Placement",
    "PowerLaw",
    "Shard",
    "Shards",
    "TwoShards",
]
