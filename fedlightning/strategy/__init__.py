"""``FederatedStrategy``: federated learning inside one Lightning Trainer. The only layer that knows it."""

from fedlightning.strategy.errors import (
    CohortTooSmall,
    EvaluationFailed,
    NotFederatable,
    RoundFailed,
    RoundInterrupted,
)
from fedlightning.strategy.federated import FederatedStrategy
from fedlightning.strategy.history import Evaluation, History
from fedlightning.strategy.records import (
    EvaluatedWorker,
    RoundRecord,
    RoundTimes,
    VisitRecord,
    VisitStart,
    WorkerSummary,
)
from fedlightning.strategy.replaying import replay
from fedlightning.strategy.tolerance import Tolerance
from fedlightning.strategy.whole_files import CheckpointNotSaved

__all__ = [
    "CheckpointNotSaved",
    "CohortTooSmall",
    "EvaluatedWorker",
    "Evaluation",
    "EvaluationFailed",
    "FederatedStrategy",
    "History",
    "NotFederatable",
    "RoundFailed",
    "RoundInterrupted",
    "RoundRecord",
    "RoundTimes",
    "Tolerance",
    "VisitRecord",
    "VisitStart",
    "WorkerSummary",
    "replay",
]
