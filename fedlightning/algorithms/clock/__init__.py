"""The simulated clock: how long a visit would take at each worker. What real time goes to is for `phases`."""

from fedlightning.algorithms.clock.clock import SimulatedClock, WorkerProfile
from fedlightning.algorithms.clock.quantities import LogNormal, Quantity, Uniform

__all__ = ["LogNormal", "Quantity", "SimulatedClock", "Uniform", "WorkerProfile"]
