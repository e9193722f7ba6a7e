"""What makes a federated algorithm: cohorts, schedules, averages, server updates. No Lightning."""

from fedlightning.algorithms.averaging import BufferMean, ParameterMean
from fedlightning.algorithms.cohort import uniform_cohort
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
    "Combiner",
    "GeometricMedian",
    "Krum",
    "LocalWork",
    "Median",
    "NormBounded",
    "ParameterMean",
    "Plan",
    "RuleCombiner",
    "Schedule",
    "SequentialSchedule",
    "ServerOptimizerFactory",
    "ServerUpdate",
    "TrimmedMean",
    "Update",
    "UpdateKind",
    "UpdateMean",
    "uniform_cohort",
]
