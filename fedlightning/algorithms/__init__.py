"""What makes a federated algorithm: cohorts, schedules, averages, server updates. No Lightning."""

from fedlightning.algorithms.algorithm import Algorithm, Collected, FedAvg, Job, ServerState, Weighting
from fedlightning.algorithms.apfl import APFL
from fedlightning.algorithms.asynchronous import (
    Asynchronous,
    AsynchronousSchedule,
    Constant,
    FedAsync,
    FedBuff,
    Hinge,
    Polynomial,
    Staleness,
)
from fedlightning.algorithms.averaging import BufferMean, ParameterMean
from fedlightning.algorithms.clock import LogNormal, Quantity, SimulatedClock, Uniform, WorkerProfile
from fedlightning.algorithms.combining import Combiner, RuleCombiner
from fedlightning.algorithms.ditto import Ditto
from fedlightning.algorithms.fedbabu import FedBABU
from fedlightning.algorithms.fedbn import FedBN
from fedlightning.algorithms.feddyn import FedDyn
from fedlightning.algorithms.fednova import FedNova
from fedlightning.algorithms.fedper import FedPer, LGFedAvg
from fedlightning.algorithms.fedprox import FedProx
from fedlightning.algorithms.fedrep import FedRep
from fedlightning.algorithms.fixed_statistics import FixedAdam, FixedMomentum, FixedRMSProp, FixedStatistics
from fedlightning.algorithms.flights import Flight, Flights
from fedlightning.algorithms.ifca import IFCA
from fedlightning.algorithms.majority import MajorityVote
from fedlightning.algorithms.mime import Mime, MimeLite
from fedlightning.algorithms.moon import Moon
from fedlightning.algorithms.participation import (
    Forecast,
    OverSelection,
    Participation,
    Stragglers,
    WorkerDropout,
)
from fedlightning.algorithms.perfedavg import PerFedAvg
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
from fedlightning.algorithms.trust import FLTrust
from fedlightning.algorithms.update import Extras, Update, UpdateKind, UpdateMean
from fedlightning.algorithms.yogi import Yogi

__all__ = [
    "APFL",
    "IFCA",
    "AggregationRule",
    "Algorithm",
    "Assignment",
    "Asynchronous",
    "AsynchronousSchedule",
    "AveragedSchedule",
    "BufferMean",
    "Bulyan",
    "CenteredClipping",
    "ChosenBy",
    "Cohort",
    "Collected",
    "Combiner",
    "Constant",
    "Ditto",
    "Draw",
    "Extras",
    "FLTrust",
    "FedAsync",
    "FedAvg",
    "FedBABU",
    "FedBN",
    "FedBuff",
    "FedDyn",
    "FedNova",
    "FedPer",
    "FedProx",
    "FedRep",
    "FixedAdam",
    "FixedMomentum",
    "FixedOrder",
    "FixedRMSProp",
    "FixedStatistics",
    "Flight",
    "Flights",
    "Forecast",
    "GeometricMedian",
    "Hinge",
    "Job",
    "Krum",
    "LGFedAvg",
    "LocalWork",
    "LogNormal",
    "Losses",
    "MajorityVote",
    "Median",
    "Mime",
    "MimeLite",
    "Moon",
    "NormBounded",
    "OnlineWorkers",
    "OverSelection",
    "ParameterMean",
    "Participation",
    "PerFedAvg",
    "Plan",
    "PoissonSampling",
    "Polynomial",
    "Pool",
    "PowerOfChoice",
    "Quantity",
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
    "SimulatedClock",
    "Staleness",
    "Stragglers",
    "TaggedWorkers",
    "TrimmedMean",
    "Uniform",
    "UniformSampling",
    "Update",
    "UpdateKind",
    "UpdateMean",
    "WeightedSampling",
    "Weighting",
    "WorkerDropout",
    "WorkerProfile",
    "Yogi",
    "uniform_cohort",
]
