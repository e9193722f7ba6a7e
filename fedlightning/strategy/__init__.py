"""``FederatedStrategy``: federated learning inside one Lightning Trainer. The only layer that knows it."""

from fedlightning.strategy.errors import NotFederatable, RoundFailed
from fedlightning.strategy.federated import FederatedStrategy
from fedlightning.strategy.history import RoundRecord, WorkerSummary

__all__ = ["FederatedStrategy", "NotFederatable", "RoundFailed", "RoundRecord", "WorkerSummary"]
