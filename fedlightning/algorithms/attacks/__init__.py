"""What bad workers do, to try defences on."""

from fedlightning.algorithms.attacks.bad_workers import (
    Attack,
    BadWorkers,
    Collusion,
    DataAttack,
    UpdateAttack,
    attacked,
)
from fedlightning.algorithms.attacks.collusion import ALIE, CollusionCombiner, InnerProduct
from fedlightning.algorithms.attacks.data import BackdoorPatch, LabelFlip
from fedlightning.algorithms.attacks.updates import Gaussian, Replacement, SignFlip

__all__ = [
    "ALIE",
    "Attack",
    "BackdoorPatch",
    "BadWorkers",
    "Collusion",
    "CollusionCombiner",
    "DataAttack",
    "Gaussian",
    "InnerProduct",
    "LabelFlip",
    "Replacement",
    "SignFlip",
    "UpdateAttack",
    "attacked",
]
