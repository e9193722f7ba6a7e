"""Errors of a federated fit, as the user sees them: where it happened, what it means, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException

from fedlightning.local.failures import LocalStepFailed, LocalStepInterrupted
from fedlightning.workers import RemoteError, WorkerLost

FailureKind = Literal["error", "lost", "nonfinite"]
"""How a visit fails: the user's code raises, the worker is gone, or the update is not finite."""


class NotFederatable(MisconfigurationException):
    """Module or Trainer ask for what cannot be federated (yet); raised at ``fit``, before any work."""


class RoundFailed(RuntimeError):
    """A worker failed during a round. The global module is that of the last completed round.

    Args:
        worker: Name of the worker.
        round: Number of the round.
        step: Number of the local step, or ``None`` where none was under way.
        reason: What happened, in words.
        kind: How the visit failed.

    Attributes:
        replay: Where the failed visit was saved to be replayed, if it was.
    """

    def __init__(
        self, worker: str, round: int, step: int | None, reason: str, kind: FailureKind = "error"
    ) -> None:
        super().__init__()
        self.worker = worker
        self.round = round
        self.step = step
        self.reason = reason
        self.kind = kind
        self.replay: str | None = None

    def __str__(self) -> str:
        return _said(self.worker, self.round, self.step, self.reason, self.replay)


class RoundInterrupted(KeyboardInterrupt):
    """A Ctrl-C during a round. The global module is that of the last completed round.

    Args:
        worker: Name of the worker that was at work.
        round: Number of the round.
        step: Number of the local step; ``None`` where none was under way here.

    Attributes:
        replay: Where the interrupted visit was saved to be replayed, if it was.
    """

    def __init__(self, worker: str, round: int, step: int | None) -> None:
        super().__init__()
        self.worker = worker
        self.round = round
        self.step = step
        self.replay: str | None = None

    def __str__(self) -> str:
        return _said(self.worker, self.round, self.step, "interrupted", self.replay)


def _said(worker: str, round: int, step: int | None, reason: str, replay: str | None) -> str:
    where = f"worker {worker!r}, round {round}" + ("" if step is None else f", local step {step}")
    said = (
        f"{where}: {reason}\n"
        "The run stops here. No update of this round was taken over: the global module is that of "
        "the last completed round."
    )
    return (
        said
        if replay is None
        else f"{said}\nTo carry out exactly this visit again: fedlightning replay {replay}"
    )


def not_finite(worker: str, round: int) -> RoundFailed:
    """Return the failure of a visit that has ended with NaN or infinity.

    Args:
        worker: Name of the worker.
        round: Number of the round.
    """
    return RoundFailed(worker, round, None, "the update is not finite", "nonfinite")


def reshaped(buffer: str, worker: str, round: int) -> RoundFailed:
    """Return the failure of a visit that has left a buffer in another shape than the others'.

    Args:
        buffer: Its name.
        worker: Name of the worker.
        round: Number of the round.
    """
    reason = (
        f"the buffer {buffer!r} has changed its shape, and buffers are averaged. Keep it at one shape, or "
        "keep what grows in an attribute that is no buffer"
    )
    return RoundFailed(worker, round, None, reason)


class CohortTooSmall(RuntimeError):
    """Too many workers of a round were skipped. The global module is that of the last completed round.

    Args:
        round: Number of the round.
        left: How many updates there are.
        required: How many there must be.
        skipped: Why each of the others was skipped, by worker.
    """

    def __init__(self, round: int, left: int, required: int, skipped: Mapping[str, str]) -> None:
        reasons = "; ".join(f"{worker!r}: {reason}" for worker, reason in skipped.items())
        why = f"Skipped were {reasons}." if skipped else "No more of them take part in this round."
        super().__init__(
            f"round {round}: {left} of {left + len(skipped)} workers sent an update, and "
            f"Tolerance(min_cohort={required}) asks for more. {why}\n"
            "The run stops here, with the global module of the last completed round."
        )
        self.round = round
        self.skipped = dict(skipped)


def round_failed(worker: str, round: int, step: int | None, original: BaseException) -> RoundFailed:
    """Make a `RoundFailed` that is of the original exception's kind as well.

    Whoever catches what the module or its data raise goes on catching it, with its attributes.

    Args:
        worker: Name of the worker.
        round: Number of the round.
        step: Number of the local step, or ``None`` where none was under way.
        original: What was raised.
    """
    reason, kind = f"{type(original).__name__}: {original}", type(original)
    try:
        both = type(RoundFailed.__name__, (RoundFailed, kind), {"__module__": __name__})
        failed: RoundFailed = both(worker, round, step, reason)
    except TypeError:  # not every class can be inherited from, or made anew
        return RoundFailed(worker, round, step, reason)
    failed.__dict__.update({**vars(original), **vars(failed)})
    failed.args = original.args
    return failed


@contextmanager
def failures_named(worker: str, round: int) -> Iterator[None]:
    """Say of whatever fails at a worker where it happened; what its policy refuses says so itself.

    Args:
        worker: Name of the worker.
        round: Number of the round.

    Raises:
        RoundFailed: The user's code raised within the block, or the worker was lost.
        RoundInterrupted: The run was interrupted.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        step = interrupt.step if isinstance(interrupt, LocalStepInterrupted) else None
        raise RoundInterrupted(worker, round, step) from interrupt
    except WorkerLost as error:
        # Without the one that is trusted with all updates, there is no going on.
        if error.worker != worker:
            raise
        raise RoundFailed(worker, round, None, str(error), "lost") from error
    except RemoteError as error:
        raise named_failure(worker, round, error.__cause__ or error)  # noqa: B904 - it has its cause


def named_failure(worker: str, round: int, failure: BaseException) -> RoundFailed:
    """Say of what was raised during a visit where that was; what the user's code has raised is the cause.

    Args:
        worker: Name of the worker.
        round: Number of the round.
        failure: What local work has raised.
    """
    step = failure.step if isinstance(failure, LocalStepFailed) else None
    original = (failure.__cause__ if step is not None else None) or failure
    failed = round_failed(worker, round, step, original)
    failed.__cause__ = original
    return failed


@contextmanager
def interrupts_named(worker: Callable[[], str], round: int) -> Iterator[None]:
    """Say of a Ctrl-C where it has come, in a block of several visits.

    Args:
        worker: Returns the name of the worker whose visit is waited for.
        round: Number of the round.

    Raises:
        RoundInterrupted: The run was interrupted within the block.
    """
    try:
        yield
    except RoundInterrupted:
        raise
    except KeyboardInterrupt as interrupt:
        raise RoundInterrupted(worker(), round, None) from interrupt


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
