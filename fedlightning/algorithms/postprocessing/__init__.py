"""What is done to an update before it leaves a worker, and undone where updates are combined."""

from fedlightning.algorithms.postprocessing.base import Keeper, Memo, Postprocessor
from fedlightning.algorithms.postprocessing.chain import Postprocessing
from fedlightning.algorithms.postprocessing.decoding import DecodingCombiner
from fedlightning.algorithms.postprocessing.downlink import Downlink
from fedlightning.algorithms.postprocessing.limits import Clip, GaussianNoise
from fedlightning.algorithms.postprocessing.low_rank import PowerSGD
from fedlightning.algorithms.postprocessing.quantize import Quantize, Sign
from fedlightning.algorithms.postprocessing.sparsify import RandomK, TopK
from fedlightning.algorithms.postprocessing.visit import ProcessedTraining

__all__ = [
    "Clip",
    "DecodingCombiner",
    "Downlink",
    "GaussianNoise",
    "Keeper",
    "Memo",
    "Postprocessing",
    "Postprocessor",
    "PowerSGD",
    "ProcessedTraining",
    "Quantize",
    "RandomK",
    "Sign",
    "TopK",
]
