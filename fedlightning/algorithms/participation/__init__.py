"""What comes of a cohort's work: stragglers, and workers that drop out. Who is drawn is for ``sampling``."""

from fedlightning.algorithms.participation.base import Participation
from fedlightning.algorithms.participation.dropout import WorkerDropout
from fedlightning.algorithms.participation.stragglers import Stragglers

__all__ = ["Participation", "Stragglers", "WorkerDropout"]
