"""Server updates that wait for nobody: FedAsync and FedBuff, and who is under way meanwhile."""

from fedlightning.algorithms.asynchronous.base import Asynchronous
from fedlightning.algorithms.asynchronous.fedasync import FedAsync
from fedlightning.algorithms.asynchronous.fedbuff import FedBuff
from fedlightning.algorithms.asynchronous.schedule import AsynchronousSchedule
from fedlightning.algorithms.asynchronous.staleness import Constant, Hinge, Polynomial, Staleness

__all__ = [
    "Asynchronous",
    "AsynchronousSchedule",
    "Constant",
    "FedAsync",
    "FedBuff",
    "Hinge",
    "Polynomial",
    "Staleness",
]
