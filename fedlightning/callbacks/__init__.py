"""Lightning callbacks that show a federation: progress with round and workers, a result table, a picture.

Metrics in files need none of them: Lightning's own loggers write those.
"""

from fedlightning.callbacks.federation import Federation, RoundInProgress, WorkerReport
from fedlightning.callbacks.hooks import FederatedCallback
from fedlightning.callbacks.plot import FederationPlot
from fedlightning.callbacks.progress import FederatedProgressBar, FederatedRichProgressBar
from fedlightning.callbacks.table import FederationTable

__all__ = [
    "FederatedCallback",
    "FederatedProgressBar",
    "FederatedRichProgressBar",
    "Federation",
    "FederationPlot",
    "FederationTable",
    "RoundInProgress",
    "WorkerReport",
]
