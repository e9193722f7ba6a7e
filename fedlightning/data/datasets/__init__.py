"""Small data sets that need no download, each with the way it is usually divided. Nothing is defined here."""

from fedlightning.data.datasets.digits import TrainVal, load_digits
from fedlightning.data.datasets.fcube import make_fcube
from fedlightning.data.datasets.grouped import GroupedData
from fedlightning.data.datasets.synthetic import make_synthetic

__all__ = ["GroupedData", "TrainVal", "load_digits", "make_fcube", "make_synthetic"]
