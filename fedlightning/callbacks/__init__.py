"""Lightning callbacks that show a federation: progress, tables, metrics per worker, pictures, a report.

They follow a run and never change its bits. Metrics that the module logs itself need none of them.
"""

from fedlightning.callbacks.fingerprint import RunFingerprint
from fedlightning.callbacks.hooks import FederatedCallback
from fedlightning.callbacks.metrics import FederatedMetrics
from fedlightning.callbacks.plot import FederationPlot
from fedlightning.callbacks.progress import FederatedProgressBar, FederatedRichProgressBar
from fedlightning.callbacks.report import FederationReport
from fedlightning.callbacks.table import FederationTable

__all__ = [
    "FederatedCallback",
    "FederatedMetrics",
    "FederatedProgressBar",
    "FederatedRichProgressBar",
    "FederationPlot",
    "FederationReport",
    "FederationTable",
    "RunFingerprint",
]
