"""What decides the next plan, and is therefore part of every checkpoint: seed, round, each worker's steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fedlightning.algorithms import Plan


class FederationState:
    """The cursor of a run: everything that plans depend on, besides the settings."""

    def __init__(self) -> None:
        self.seed = 0
        self.round = 0
        self.steps_done: dict[str, int] = {}

    def start(self, seed: int | None) -> None:
        """Begin a run.

        Args:
            seed: The run's seed; ``None`` for that of torch's global generator, which is not drawn from.
        """
        self.seed = seed if seed is not None else torch.initial_seed()
        self.round = 0
        self.steps_done = {}

    def complete(self, plan: Plan) -> None:
        """Move past a round that was taken over."""
        self.round = plan.round + 1
        for assignment in plan.assignments:
            self.steps_done[assignment.worker] = assignment.first_step + assignment.steps

    def finish_local_epoch(self, batches: Mapping[str, int]) -> None:
        """Move every worker to the start of a local epoch, where an epoch of the Trainer was cut short."""
        for worker, done in self.steps_done.items():
            self.steps_done[worker] = -(-done // batches[worker]) * batches[worker]

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {"seed": self.seed, "round": self.round, "steps_done": dict(self.steps_done)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state."""
        self.seed = state["seed"]
        self.round = state["round"]
        self.steps_done = dict(state["steps_done"])
