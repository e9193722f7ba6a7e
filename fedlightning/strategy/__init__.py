"""``FederatedStrategy``: federated learning inside one Lightning Trainer. The only layer that knows it."""

from fedlightning.strategy.errors import EvaluationFailed, NotFederatable, RoundFailed
from fedlightning.strategy.federated import FederatedStrategy
from fedlightning.strategy.history import Evaluation, History
from fedlightning.strategy.records import RoundRecord, VisitRecord, VisitStart, WorkerSummary

__all__ = [
    "Evaluation",
    "EvaluationFailed",
    "FederatedStrategy",
    "History",
    "NotFederatable",
    "RoundFailed",
    "RoundRecord",
    "VisitRecord",
    "VisitStart",
    "WorkerSummary",
]
