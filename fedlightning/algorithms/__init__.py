"""What makes a federated algorithm: cohorts, schedules, averages, server updates. No Lightning."""

from fedlightning.algorithms.algorithm import Algorithm, Collected, FedAvg, Job, ServerState, Weighting
from fedlightning.algorithms.averaging import BufferMean, ParameterMean
from fedlightning.algorithms.combining import Combiner, RuleCombiner
from fedlightning.algorithms.feddyn import FedDyn
from fedlightning.algorithms.fednova import FedNova
from fedlightning.algorithms.fedprox import FedProx
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
from fedlightning.algorithms.scaffold import Scaffold
from fedlightning.algorithms.schedule import AveragedSchedule, LocalWork, Schedule, SequentialSchedule
from fedlightning.algorithms.server import ServerOptimizerFactory, ServerSchedulerFactory, ServerUpdate
from fedlightning.algorithms.update import Extras, Update, UpdateKind, UpdateMean
from fedlightning.algorithms.yogi import Yogi

__all__ = [
    "AggregationRule",
    "Algorithm",
    "Assignment",
    "AveragedSchedule",
    "BufferMean",
    "Bulyan",
    "CenteredClipping",
    "ChosenBy",
    "Cohort",
    "Collected",
    "Combiner",
    "Draw",
    "Extras",
    "FedAvg",
    "FedDyn",
    "FedNova",
    "FedProx",
    "FixedOrder",
    "GeometricMedian",
    "Job",
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
    "Scaffold",
    "Schedule",
    "SequentialSchedule",
    "ServerOptimizerFactory",
    "ServerSchedulerFactory",
    "ServerState",
    "ServerUpdate",
    "TaggedWorkers",
    "TrimmedMean",
    "UniformSampling",
    "Update",
    "UpdateKind",
    "UpdateMean",
    "WeightedSampling",
    "Weighting",
    "Yogi",
    "uniform_cohort",
]
