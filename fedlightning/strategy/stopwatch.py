"""Simulated seconds of visits: by the true bytes of those that are over, by the last ones' of those to come.

How fast a worker is lives in ``algorithms.clock``; what the real time goes to, in ``phases``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from torch import nn
from torch.optim import Optimizer

from fedlightning.algorithms import Assignment, SimulatedClock, WorkerProfile
from fedlightning.algorithms.postprocessing import Memo, Postprocessing
from fedlightning.local.randomness import isolated_streams
from fedlightning.strategy.traffic import Traffic
from fedlightning.workers.payload import payload_bytes


class Stopwatch:
    """Tell how long visits take by the simulated clock.

    Args:
        clock: The clock.
        seed: Seed of the run.
        samples: Number of samples by worker.
        batches: Batches of a local epoch by worker.
    """

    def __init__(
        self, clock: SimulatedClock, seed: int, samples: Mapping[str, int], batches: Mapping[str, int]
    ) -> None:
        self._clock = clock
        self._seed = seed
        self._samples = samples
        self._batches = batches
        self._profile = cache(self._profile_of)

    def _profile_of(self, worker: str) -> WorkerProfile:
        return self._clock.profile(worker, self._seed)

    def seconds(self, worker: str, steps: int, traffic: Traffic) -> float:
        """Return how long a visit takes.

        Args:
            worker: Name of the worker.
            steps: Local steps of the visit.
            traffic: What passes the worker's door.
        """
        samples = steps * self._samples[worker] / self._batches[worker]
        return self._profile(worker).seconds(
            steps=steps, samples=samples, bytes_down=traffic.down, bytes_up=traffic.up
        )

    def expected(self, assignment: Assignment, traffic: Traffic) -> float:
        """Return how long a visit will take, with the bytes that others took."""
        return self.seconds(assignment.worker, assignment.steps, traffic)


def expected_traffic(
    module: nn.Module, optimizers: Sequence[Optimizer], chain: Postprocessing | None
) -> Traffic:
    """Return what a first visit will move, as far as can be told: the module there, and what comes back.

    Args:
        module: The global module.
        optimizers: Its optimizers, which go along.
        chain: How updates are processed before they leave; ``None`` for not at all.
    """
    whole = payload_bytes(module) + payload_bytes(list(optimizers))
    if chain is None:
        return Traffic(up=whole, down=whole)
    nothing = [parameter.detach() * 0 for parameter in module.parameters() if parameter.requires_grad]
    with isolated_streams():
        sent = chain.encode(nothing, Memo())
    return Traffic(up=payload_bytes(sent) + payload_bytes(list(module.buffers())), down=whole)
