"""What makes a federated algorithm: cohorts, schedules, averages, server updates. No Lightning."""

from fedlightning.algorithms.averaging import BufferMean, ParameterMean
from fedlightning.algorithms.cohort import uniform_cohort
from fedlightning.algorithms.plan import Assignment, Plan
from fedlightning.algorithms.schedule import AveragedSchedule, LocalWork, Schedule, SequentialSchedule
from fedlightning.algorithms.server import ServerOptimizerFactory, ServerUpdate

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
    "uniform_cohort",
]
