"""Errors of a federated fit, as the user sees them: where it happened, what it means, what to do."""

from __future__ import annotations

from lightning.fabric.utilities.exceptions import MisconfigurationException


class NotFederatable(MisconfigurationException):
    """Module or Trainer ask for what cannot be federated (yet); raised at ``fit``, before any work."""


class RoundFailed(RuntimeError):
    """A worker failed during a round. The global module is that of the last completed round.

    Args:
        worker: Name of the worker.
        round: Number of the round.
        step: Number of the local step, or ``None`` where none was under way.
        reason: The original exception.
    """

    def __init__(self, worker: str, round: int, step: int | None, reason: BaseException) -> None:
        where = f"worker {worker!r}, round {round}" + ("" if step is None else f", local step {step}")
        super().__init__(
            f"{where}: {type(reason).__name__}: {reason}\n"
            "The run stops here. No update of this round was taken over: the global module is that of "
            "the last completed round."
        )
        self.worker = worker
        self.round = round
        self.step = step


class EvaluationFailed(RuntimeError):
    """The user's code raised while a worker's data was evaluated. The global module is as it was.

    Args:
        worker: Name of the worker.
        step: ``validation_step``, ``test_step`` or ``predict_step``.
        batch: Number of the batch at the worker.
        reason: The original exception.
    """

    def __init__(self, worker: str, step: str, batch: int, reason: BaseException) -> None:
        super().__init__(
            f"worker {worker!r}, {step} of batch {batch}: {type(reason).__name__}: {reason}\n"
            "The global module is as it was before."
        )
        self.worker = worker
        self.batch = batch
