"""The report of a run: one HTML file with everything in it. Nothing is defined here.

What is known of the run is gathered by `contents`, drawn by `pictures` and set by `page`.
"""

from fedlightning.callbacks.report.callback import FederationReport

__all__ = ["FederationReport"]
