"""Ways to divide a dataset over workers. Nothing is defined here."""

from fedlightning.data.partition.base import Partition, Partitioner
from fedlightning.data.partition.classes import ClassesPerWorker
from fedlightning.data.partition.dirichlet import Dirichlet
from fedlightning.data.partition.distribution import LabelShares
from fedlightning.data.partition.explicit import Explicit
from fedlightning.data.partition.features import FeatureNoise, FeatureRotation, FeatureSkew
from fedlightning.data.partition.iid import IID
from fedlightning.data.partition.natural import Natural
from fedlightning.data.partition.quantity import LogNormal, PowerLaw
from fedlightning.data.partition.shards import Shards, TwoShards

__all__ = [
    "IID",
    "ClassesPerWorker",
    "Dirichlet",
    "Explicit",
    "FeatureNoise",
    "FeatureRotation",
    "FeatureSkew",
    "LabelShares",
    "LogNormal",
    "Natural",
    "Partition",
    "Partitioner",
    "PowerLaw",
    "Shards",
    "TwoShards",
]
