"""What makes a federated algorithm: cohorts, schedules, averages, server updates. No Lightning."""

from fedlightning.algorithms.averaging import BufferMean, ParameterMean
from fedlightning.algorithms.combining import Combiner, RuleCombiner
from fedlightning.algorithms.plan import Assignment, Plan
from fedlightning.algorithms.robust import (
    AggregationRule,
    Bulyan,
    CenteredClipping,
    GeometricMedian,
    Krum,
    Median,
    NormBounded,
    TrimmedMean,
)
from fedlightning.algorithms.sampling import (
    ChosenBy,
    Cohort,
    Draw,
    FixedOrder,
    Losses,
    OnlineWorkers,
    PoissonSampling,
    Pool,
    PowerOfChoice,
    RoundRobin,
    Sampling,
    TaggedWorkers,
    UniformSampling,
    WeightedSampling,
    uniform_cohort,
)
from fedlightning.algorithms.schedule import AveragedSchedule, LocalWork, Schedule, SequentialSchedule
from fedlightning.algorithms.server import ServerOptimizerFactory, ServerUpdate
from fedlightning.algorithms.update import Update, UpdateKind, UpdateMean

__all__ = [
    "AggregationRule",
    "Assignment",
    "AveragedSchedule",
    "BufferMean",
    "Bulyan",
    "CenteredClipping",
    "ChosenBy",
    "Cohort",
    "Combiner",
    "Draw",
    "FixedOrder",
    "GeometricMedian",
    "Krum",
    "LocalWork",
    "Losses",
    "Median",
    "NormBounded",
    "OnlineWorkers",
    "ParameterMean",
    "Plan",
    "PoissonSampling",
    "Pool",
    "PowerOfChoice",
    "RoundRobin",
    "RuleCombiner",
    "Sampling",
    "Schedule",
    "SequentialSchedule",
    "ServerOptimizerFactory",
    "ServerUpdate",
    "TaggedWorkers",
    "TrimmedMean",
    "UniformSampling",
    "Update",
    "UpdateKind",
    "UpdateMean",
    "WeightedSampling",
    "uniform_cohort",
]
