"""What makes a federated algorithm: cohorts, schedules, averages, server updates. No Lightning."""

from fedlightning.algorithms.averaging import BufferMean, ParameterMean
from fedlightning.algorithms.cohort import uniform_cohort
from fedlightning.algorithms.plan import Assignment, Plan
from fedlightning.algorithms.schedule import AveragedSchedule, LocalWork, Schedule, SequentialSchedule
from fedlightning.algorithms.server import ServerOptimizerFactory, ServerUpdate
from fedlightning.algorithms.update import Update, UpdateKind, UpdateMean

__all__ = [
    "Assignment",
    "AveragedSchedule",
    "BufferMean",
    "LocalWork",
    "ParameterMean",
    "Plan",
    "Schedule",
    "SequentialSchedule",
    "ServerOptimizerFactory",
    "ServerUpdate",
    "Update",
    "UpdateKind",
    "UpdateMean",
    "uniform_cohort",
]
