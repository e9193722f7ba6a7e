"""Ways to draw the cohort of a round. Nothing is defined here."""

from fedlightning.algorithms.sampling.base import Cohort, Draw, Losses, Pool, Sampling
from fedlightning.algorithms.sampling.chosen import ChosenBy
from fedlightning.algorithms.sampling.online import OnlineWorkers
from fedlightning.algorithms.sampling.poisson import PoissonSampling
from fedlightning.algorithms.sampling.power_of_choice import PowerOfChoice
from fedlightning.algorithms.sampling.tagged import TaggedWorkers
from fedlightning.algorithms.sampling.turns import FixedOrder, RoundRobin
from fedlightning.algorithms.sampling.uniform import UniformSampling, uniform_cohort
from fedlightning.algorithms.sampling.weighted import WeightedSampling

__all__ = [
    "ChosenBy",
    "Cohort",
    "Draw",
    "FixedOrder",
    "Losses",
    "OnlineWorkers",
    "PoissonSampling",
    "Pool",
    "PowerOfChoice",
    "RoundRobin",
    "Sampling",
    "TaggedWorkers",
    "UniformSampling",
    "WeightedSampling",
    "uniform_cohort",
]
