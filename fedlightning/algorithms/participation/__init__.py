"""What comes of a cohort's work: stragglers, and workers that drop out. Who is drawn is for ``sampling``."""

from fedlightning.algorithms.participation.base import Forecast, Participation, asked_of, outcome_of
from fedlightning.algorithms.participation.dropout import WorkerDropout
from fedlightning.algorithms.participation.over_selection import OverSelection
from fedlightning.algorithms.participation.stragglers import Stragglers

__all__ = [
    "Forecast",
    "OverSelection",
    "Participation",
    "Stragglers",
    "WorkerDropout",
    "asked_of",
    "outcome_of",
]
