"""FedBABU: the head stays as it was initialised, until each worker fine-tunes for itself.

Oh et al. 2022, "FedBABU: Toward Enhanced Representation for Federated Image Classification", Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from typing_extensions import override

from fedlightning.algorithms.algorithm import Algorithm, Job, ServerState, loss_is_not_told
from fedlightning.algorithms.fedper import unmatched
from fedlightning.algorithms.numbers import require_at_least
from fedlightning.algorithms.plan import Plan
from fedlightning.local.fine_tuning import fine_tune
from fedlightning.local.procedure import LocalModel, LocalProcedure, LocalTraining
from fedlightning.workers.remote import record


@dataclass(frozen=True)
class FedBABU(Algorithm):
    """Train and average the body only; before an evaluation at a worker, fine-tune all of it on its data.

    Args:
        head: Names of the head's parts, which are not trained.
        fine_tune_steps: Batches of the worker's training data to fine-tune on; 0 to evaluate without.
        fine_tune_rate: Learning rate of that, by plain SGD.
        weighting: As in `FedAvg`.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> FedBABU(head=["head"], fine_tune_steps=5).head
        ('head',)
    """

    head: tuple[str, ...] = ()
    fine_tune_steps: int = 5
    fine_tune_rate: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "head", tuple(self.head))
        require_at_least("fine_tune_steps", self.fine_tune_steps, 0)
        require_at_least("fine_tune_rate", self.fine_tune_rate, 0)

    @override
    def why_not(self, job: Job) -> Iterator[str]:
        yield from unmatched("head", self.head, job)
        if self.fine_tune_steps:
            yield from loss_is_not_told(job, "FedBABU fine-tunes before an evaluation")

    @override
    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        return BodyTraining(self.head, self.fine_tune_steps, self.fine_tune_rate) if self.head else None

    @override
    def evaluation(self, state: ServerState) -> LocalProcedure | None:
        return BodyTraining(self.head, self.fine_tune_steps, self.fine_tune_rate)


@record
@dataclass(frozen=True)
class BodyTraining(LocalProcedure):
    """Train all but the head; fine-tune all for an evaluation.

    Args:
        head: Which parts are the head.
        fine_tune_steps: Batches to fine-tune on.
        fine_tune_rate: Learning rate of that.
    """

    head: tuple[str, ...]
    fine_tune_steps: int
    fine_tune_rate: float

    @override
    def run(self, local: LocalTraining) -> None:
        local.train_only(set(range(len(local.parameters))) - local.positions(self.head))

    @override
    def personalise(self, local: LocalModel) -> None:
        fine_tune(local, steps=self.fine_tune_steps, rate=self.fine_tune_rate)
