"""A clock that is computed: seconds of a visit from the work, the bytes, and the worker's profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import inf

from fedlightning.algorithms.clock.quantities import Quantity, check_quantity, quantity_of
from fedlightning.algorithms.sampling.identity import identity_of


@dataclass(frozen=True)
class WorkerProfile:
    """How fast one worker is.

    Args:
        seconds_per_step: Seconds of each local step.
        seconds_per_sample: Seconds of each sample in it, beside that.
        down: Bytes per second to the worker.
        up: Bytes per second from it.
        latency: Seconds that a message takes on its way, either way, however short it is.

    Example:
        >>> phone = WorkerProfile(seconds_per_step=0.5, down=1000, up=100, latency=0.1)
        >>> phone.seconds(steps=4, samples=40, bytes_down=3000, bytes_up=200)
        7.2
    """

    seconds_per_step: float = 0.0
    seconds_per_sample: float = 0.0
    down: float = inf
    up: float = inf
    latency: float = 0.0

    def seconds(self, *, steps: int, samples: float, bytes_down: int, bytes_up: int) -> float:
        """Return how long a visit takes: the way there, the work, and the way back.

        Args:
            steps: Its local steps.
            samples: Samples in these.
            bytes_down: Bytes that are sent to the worker.
            bytes_up: Bytes that leave it.
        """
        work = steps * self.seconds_per_step + samples * self.seconds_per_sample
        return 2 * self.latency + bytes_down / self.down + work + bytes_up / self.up


@dataclass(frozen=True)
class SimulatedClock:
    """Say how long visits would take at workers of given speed, as a pure function of the run's seed.

    Every argument is a number for all workers, a mapping from their names to numbers, or a distribution such
    as `LogNormal`, from which each worker's is drawn once.

    Args:
        seconds_per_step: Seconds of a local step.
        seconds_per_sample: Seconds of each sample in it, beside that.
        down: Bytes per second to a worker.
        up: Bytes per second from it.
        latency: Seconds that a message takes on its way, either way.

    Raises:
        ValueError: A number is out of range; a bandwidth must be positive.

    Example:
        >>> clock = SimulatedClock(seconds_per_step={"bob": 0.5, "alice": 2.0}, up=1000)
        >>> bob = clock.profile("bob", seed=0)
        >>> bob.seconds(steps=4, samples=40, bytes_down=0, bytes_up=500)
        2.5
    """

    seconds_per_step: Quantity = 0.0
    seconds_per_sample: Quantity = 0.0
    down: Quantity = inf
    up: Quantity = inf
    latency: Quantity = 0.0

    def __post_init__(self) -> None:
        for name in ("seconds_per_step", "seconds_per_sample", "latency"):
            check_quantity(name, getattr(self, name), zero_allowed=True)
        for name in ("down", "up"):
            check_quantity(name, getattr(self, name), zero_allowed=False, infinite=True)

    def profile(self, worker: str, seed: int) -> WorkerProfile:
        """Return how fast a worker is.

        Args:
            worker: Its name.
            seed: Seed of the run.

        Raises:
            ValueError: A mapping does not name the worker.
        """
        names = [field.name for field in fields(self)]
        own = {name: quantity_of(getattr(self, name), name, worker, seed) for name in names}
        return WorkerProfile(**own)

    def check(self, workers: Sequence[str]) -> None:
        """Check the mappings against the workers that there are.

        Args:
            workers: Names of all workers of the run.

        Raises:
            ValueError: A mapping leaves out one of them, or names another.
        """
        for field in fields(self):
            quantity = getattr(self, field.name)
            if isinstance(quantity, Mapping) and set(quantity) != set(workers):
                odd = sorted(set(quantity) ^ set(workers))
                raise ValueError(
                    f"{field.name} of the clock and the workers differ in {odd[:5]}. Name each of the "
                    f"{len(workers)} workers, and nobody else."
                )

    @property
    def identity(self) -> str:
        """What a run must have in common with a checkpoint to go on from it, as text."""
        return identity_of(self)
