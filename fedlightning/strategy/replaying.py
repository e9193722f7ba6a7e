"""Carry out one failed visit again, exactly as it was: same parameters, same batches, same random numbers.

A visit that fails leaves a checkpoint of the federation as the round began; a replay resumes from it, visits
that one worker and stops.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from fedlightning.algorithms import Plan
from fedlightning.strategy.errors import RoundFailed, RoundInterrupted


class VisitReplayed(Exception):
    """Leave the Trainer's loop once the visit to replay is done."""


class Replay:
    """Which visit to carry out.

    Args:
        worker: Name of the worker.
    """

    def __init__(self, worker: str) -> None:
        self.worker = worker

    def only(self, plan: Plan) -> Plan:
        """Return a plan with nobody else in it.

        Raises:
            ValueError: The worker takes no part in the round.
        """
        chosen = tuple(assignment for assignment in plan.assignments if assignment.worker == self.worker)
        if not chosen:
            raise ValueError(
                f"worker={self.worker!r} takes no part in round {plan.round} of this checkpoint: its "
                f"cohort is {', '.join(plan.workers)}. Name one of these."
            )
        return plan.but(chosen, {})


def save_for_replay(trainer: pl.Trainer, failure: RoundFailed | RoundInterrupted) -> Path | None:
    """Save the federation as the failed round began.

    Args:
        trainer: The Trainer, whose module is that of the last completed round.
        failure: What failed.

    Returns:
        Where it was saved; ``None`` where the Trainer saves no checkpoints.
    """
    if not _saves_checkpoints(trainer):
        return None
    path = Path(trainer.default_root_dir) / "failed_visits" / f"round-{failure.round}-{failure.worker}.ckpt"
    trainer.save_checkpoint(path)
    return path


def _saves_checkpoints(trainer: pl.Trainer) -> bool:
    return bool(trainer.checkpoint_callbacks) and not getattr(trainer, "fast_dev_run")  # noqa: B009 - untyped


def keep_for_replay(
    trainer: pl.Trainer, failure: RoundFailed | RoundInterrupted, *, at_work: bool = False
) -> None:
    """Save the failed round's start, and tell the failure where; that it cannot be saved must not hide why.

    Args:
        trainer: As for `save_for_replay`.
        failure: What failed.
        at_work: Whether a worker in another process goes on with a visit that was interrupted here. What it
            keeps can be had when that has ended; a further Ctrl-C does without.
    """
    waits = at_work and isinstance(failure, RoundInterrupted) and _saves_checkpoints(trainer)
    try:
        if waits:
            rank_zero_warn(
                f"waiting for the end of what worker {failure.worker!r} is at, to save it for a replay. "
                "Press Ctrl-C again to stop without."
            )
        path = save_for_replay(trainer, failure)
    except KeyboardInterrupt:
        if not waits:
            raise
    except Exception as error:  # noqa: BLE001 - a full disk, a lost worker: told beside the failure
        rank_zero_warn(f"the failed visit could not be saved for a replay: {error}")
    else:
        failure.replay = None if path is None else str(path)


def worker_of(checkpoint: str | Path) -> str:
    """Return the worker whose failed visit a file is of, by the name that `save_for_replay` gave it.

    Raises:
        ValueError: The file has another name.
    """
    kind, _, rest = Path(checkpoint).stem.partition("-")
    _, _, worker = rest.partition("-")
    if kind != "round" or not worker:
        raise ValueError(
            f"checkpoint={str(checkpoint)!r} is not named as a failed visit (round-<number>-<worker>.ckpt). "
            "Name the worker: replay(..., worker='bob')."
        )
    return worker


def replay(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    checkpoint: str | Path,
    *,
    worker: str | None = None,
    **data: Any,
) -> None:
    """Carry out one visit of a saved round again, to see it fail (in a debugger) or not.

    Args:
        trainer: A Trainer like that of the run, with a `FederatedStrategy` of the same settings. Give it no
            loggers or checkpoint callbacks: a replay writes nothing of its own.
        module: A module like that of the run; its parameters are replaced.
        checkpoint: A file from ``failed_visits/``, or any checkpoint of the federation, whose next round is
            replayed.
        worker: Whose visit; for a file from ``failed_visits/``, its name tells.
        **data: As for ``trainer.fit``: ``train_dataloaders`` or ``datamodule``.

    Raises:
        RoundFailed: The visit fails again; the original exception is its ``__cause__``.
        TypeError: The Trainer has no `FederatedStrategy`.
        ValueError: The worker takes no part in the round.
    """
    from fedlightning.strategy.federated import FederatedStrategy

    strategy = trainer.strategy
    if not isinstance(strategy, FederatedStrategy):
        raise TypeError(
            f"trainer has strategy={type(strategy).__name__}: give it the FederatedStrategy of the run."
        )
    strategy.replay = Replay(worker if worker is not None else worker_of(checkpoint))
    try:
        trainer.fit(module, ckpt_path=str(checkpoint), **data)
    except VisitReplayed:
        return
    finally:
        strategy.replay = None
