"""The ordinary Lightning modules and data that the shipped experiments train; they import nothing of ours.

They lie in the package, not in the top-level `examples/`, so that an installed wheel can run the experiments.
"""

from fedlightning.examples.digits_datamodule import DigitsDataModule
from fedlightning.examples.digits_module import DigitsClassifier
from fedlightning.examples.tensor_classifier import TensorClassifier
from fedlightning.examples.tensors_datamodule import TensorsDataModule

__all__ = ["DigitsClassifier", "DigitsDataModule", "TensorClassifier", "TensorsDataModule"]
