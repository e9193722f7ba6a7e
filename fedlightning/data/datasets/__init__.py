"""Small data sets that need no download, each with the way it is usually divided. Nothing is defined here."""

from fedlightning.data.datasets.by_worker import load_fcube, load_speakers, load_synthetic
from fedlightning.data.datasets.digits import load_digits
from fedlightning.data.datasets.fcube import make_fcube
from fedlightning.data.datasets.grouped import GroupedData
from fedlightning.data.datasets.mnist5k import load_mnist5k
from fedlightning.data.datasets.shakespeare import Shakespeare, load_shakespeare
from fedlightning.data.datasets.split import TrainVal
from fedlightning.data.datasets.synthetic import make_synthetic

__all__ = [
    "GroupedData",
    "Shakespeare",
    "TrainVal",
    "load_digits",
    "load_fcube",
    "load_mnist5k",
    "load_shakespeare",
    "load_speakers",
    "load_synthetic",
    "make_fcube",
    "make_synthetic",
]
