"""``FederatedStrategy``: federated learning inside one Lightning Trainer. The only layer that knows it."""

from fedlightning.strategy.errors import CohortTooSmall, EvaluationFailed, NotFederatable, RoundFailed
from fedlightning.strategy.federated import FederatedStrategy
from fedlightning.strategy.history import Evaluation, History
from fedlightning.strategy.records import RoundRecord, VisitRecord, VisitStart, WorkerSummary
from fedlightning.strategy.replaying import replay
from fedlightning.strategy.tolerance import Tolerance

__all__ = [
    "CohortTooSmall",
    "Evaluation",
    "EvaluationFailed",
    "FederatedStrategy",
    "History",
    "NotFederatable",
    "RoundFailed",
    "RoundRecord",
    "Tolerance",
    "VisitRecord",
    "VisitStart",
    "WorkerSummary",
    "replay",
]
